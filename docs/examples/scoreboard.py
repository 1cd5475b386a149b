"""A live scoreboard: a Flask app with a hub in the same process.

    pip install flask .          # in a checkout of broadcast-server
    python docs/examples/scoreboard.py

It prints the address of the board, for a screen on the wall. The referee opens
http://127.0.0.1:5000/ and types a score, or sends it:

    curl -d score=3:1 http://127.0.0.1:5000/score

Whoever may do that is for the app to decide: this one has no login.
"""

from __future__ import annotations

import argparse

from flask import Flask, redirect, request
from werkzeug.wrappers import Response

from broadcast_server import BroadcastHub, HubError

FORM = """<!doctype html>
<title>Scoreboard</title>
<form method="post" action="/score">
  <label>Score <input name="score" maxlength="20" required autofocus></label>
  <button>Show it</button>
</form>
"""


def create_app(hub: BroadcastHub) -> Flask:
    """Return the app; each of its threads may call the hub."""
    app = Flask(__name__)

    @app.get("/")
    def form() -> str:
        return FORM

    @app.post("/score")
    def score() -> Response | tuple[str, int, dict[str, str]]:
        try:
            hub.broadcast(request.form["score"], room="/scores")
        except HubError as error:  # it is behind, or stops: nothing was sent
            return str(error), 503, {"Retry-After": "1"}
        return redirect("/", 303)

    return app


def main() -> None:
    """Run app and hub until Ctrl-C."""
    parser = argparse.ArgumentParser(description="a live scoreboard")
    parser.add_argument("--port", type=int, default=5000, help="port of the app")
    parser.add_argument("--hub-port", type=int, default=8765, help="port of the hub")
    options = parser.parse_args()
    # The hub belongs to one process, so the app may have threads, but no second worker and no
    # reloader, which would start another. With more workers: docs/howto/many-publishers.md.
    with BroadcastHub(port=options.hub_port) as hub:
        print(f"The board: http://127.0.0.1:{hub.port}/scores?view=board", flush=True)
        create_app(hub).run(port=options.port, threaded=True, use_reloader=False)


if __name__ == "__main__":
    main()
