"""What PyInstaller does not find by itself: the web page, and modules imported when needed."""

from __future__ import annotations

from PyInstaller.utils.hooks import collect_data_files, collect_submodules

datas = collect_data_files("broadcast_server")  # codespell:ignore
hiddenimports = collect_submodules(
    "broadcast_server", filter=lambda name: not name.startswith("broadcast_server.__pyinstaller")
)
