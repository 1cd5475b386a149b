/*
 * Load generator for a WebSocket broadcast server: one thread, one epoll, any number of clients.
 *
 * It opens --clients connections to ws://127.0.0.1:PORT/PATH, lets some of them send, parses every
 * frame at every client and checks every delivery: length, filler, and the number that each sender
 * puts into its messages, which must grow by exactly one at each receiver. So a lost, doubled,
 * reordered, damaged or echoed message is an error, and a run counts only if there is none. Pings
 * are answered, the run ends with a close handshake, and one JSON object tells the result.
 *
 * Modes (--mode):
 *   throughput  --senders clients write --messages each, as fast as their sockets take it.
 *   latency     --senders clients share --rate messages a second for --seconds; each message
 *               carries the time of its write, and every delivery is timed.
 *   idle        all join, each answers --need-pings pings, then the server's memory is read.
 *   connect     only the joining is timed, with --concurrency handshakes in flight.
 * --stalled adds clients which join with tiny buffers and never read again until the run is over.
 *
 * Before a run the first client sends probes until one of them reached all the others: then the
 * server has everybody on its list, also one that registers a client after answering it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define READ_BYTES (256 * 1024)
#define WRITE_BYTES (32 * 1024)
#define MAX_SIZE 65535
/* Kind, sender (4 digits), number (8), time (16); all but the kind in hexadecimal; then filler. */
#define PREFIX 29

/* The example of RFC 6455 section 1.3: a fixed key makes the right answer known without SHA-1. */
#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

enum state { CONNECTING, HANDSHAKE, OPEN, CLOSED };

struct client {
    int fd;
    int index;
    enum state state;
    bool stalled, want_write, close_sent;
    int close_code;         /* of the peer's Close frame; 0 = none */
    uint8_t *carry;         /* an incomplete frame, or the incomplete HTTP answer */
    size_t carry_len, carry_cap;
    uint8_t *out;           /* whole frames not yet taken by the socket */
    size_t out_off, out_len, out_cap;
    uint32_t *next;         /* the number expected from each sender */
    uint32_t to_send, sent; /* as a busy sender */
    uint32_t probe;         /* the last probe received */
    uint32_t pings;
};

static struct {
    const char *mode, *path;
    int port, pid, clients, senders, stalled, concurrency, size, need_pings;
    double rate, seconds, timeout;
    uint32_t messages;
} opt = {.mode = "throughput", .path = "/", .clients = 100, .senders = 1, .concurrency = 4,
         .size = 64, .need_pings = 1, .rate = 50, .seconds = 5, .timeout = 60, .messages = 1000};

static struct client *clients;
static int total, poller, opened, closed;
static uint8_t input[READ_BYTES + MAX_SIZE + 16];
static uint8_t filler[MAX_SIZE];
static int8_t hex_value[256];
static uint32_t mask_state = 2463534242u;

static uint64_t deliveries, damaged, misordered, echoed, lost;
static uint64_t pings_answered, close_answers;
static uint32_t probes;
static int probed;          /* clients that have seen the newest probe */
static int pinged;          /* clients that have answered enough pings */
static bool timing;         /* latency mode: read the clock for each delivery */
static uint32_t *samples;   /* microseconds */
static size_t sample_count, sample_cap;
static uint64_t last_delivery;

static void die(const char *what) {
    fprintf(stderr, "loadgen: %s: %s\n", what, errno ? strerror(errno) : "failed");
    exit(2);
}

static void *need(void *memory) {
    if (!memory) die("memory");
    return memory;
}

static uint64_t now_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t now(void) { return now_ns(CLOCK_MONOTONIC); }

/* User and system time of the server: what /proc/PID/stat tells, but in nanoseconds. */
static uint64_t server_cpu(void) {
    clockid_t clock;
    if (!opt.pid || clock_getcpuclockid(opt.pid, &clock)) return 0;
    return now_ns(clock);
}

static long server_rss_kib(void) {
    char name[64], line[256];
    long kib = 0;
    snprintf(name, sizeof name, "/proc/%d/status", opt.pid);
    FILE *file = fopen(name, "r");
    if (!file) return 0;
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "VmRSS: %ld", &kib) == 1) break;
    fclose(file);
    return kib;
}

/* ---- writing ---- */

static void interest(struct client *c, bool want_write) {
    if (c->want_write == want_write) return;
    struct epoll_event e = {.events = EPOLLIN | (want_write ? EPOLLOUT : 0), .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &e)) die("epoll_ctl");
    c->want_write = want_write;
}

static void drop(struct client *c) {
    if (c->state == CLOSED) return;
    if (c->state == OPEN && !c->close_sent && !c->stalled) lost++;
    c->state = CLOSED;
    closed++;
    close(c->fd);
}

static void reserve(uint8_t **buffer, size_t *cap, size_t wanted) {
    if (wanted <= *cap) return;
    *cap = wanted < 256 ? 256 : wanted * 2;
    *buffer = need(realloc(*buffer, *cap));
}

/* Append one masked frame to what the client has to write. */
static void put_frame(struct client *c, int opcode, const uint8_t *payload, size_t size) {
    if (c->out_off == c->out_len) c->out_off = c->out_len = 0;
    reserve(&c->out, &c->out_cap, c->out_len + size + 8);
    uint8_t *p = c->out + c->out_len;
    *p++ = 0x80 | opcode;
    if (size < 126) {
        *p++ = 0x80 | size;
    } else {
        *p++ = 0x80 | 126;
        *p++ = size >> 8;
        *p++ = size & 255;
    }
    mask_state ^= mask_state << 13;
    mask_state ^= mask_state >> 17;
    mask_state ^= mask_state << 5;
    uint8_t mask[4];
    memcpy(mask, &mask_state, 4);
    memcpy(p, mask, 4);
    p += 4;
    for (size_t i = 0; i < size; i++) p[i] = payload[i] ^ mask[i & 3];
    c->out_len = (size_t)(p - c->out) + size;
}

static void put_hex(uint8_t *p, uint64_t value, int digits) {
    while (digits--) {
        p[digits] = "0123456789abcdef"[value & 15];
        value >>= 4;
    }
}

static void put_message(struct client *c, char kind, uint32_t number) {
    static uint8_t payload[MAX_SIZE];
    payload[0] = kind;
    put_hex(payload + 1, c->index, 4);
    put_hex(payload + 5, number, 8);
    put_hex(payload + 13, timing ? now() : 0, 16);
    memcpy(payload + PREFIX, filler, opt.size - PREFIX);
    put_frame(c, 1, payload, opt.size);
}

static void flush(struct client *c) {
    while (c->state == OPEN && c->out_off < c->out_len) {
        ssize_t n = send(c->fd, c->out + c->out_off, c->out_len - c->out_off, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN) break;
            drop(c);
            return;
        }
        c->out_off += n;
    }
    if (c->state == OPEN) interest(c, c->out_off < c->out_len || c->sent < c->to_send);
}

/* A busy sender: one chunk for each time that the socket can take more. */
static void write_more(struct client *c) {
    if (c->out_off == c->out_len) {
        c->out_off = c->out_len = 0;
        while (c->sent < c->to_send && c->out_len < WRITE_BYTES) put_message(c, 'M', c->sent++);
    }
    flush(c);
}

static void send_close(struct client *c) {
    if (c->state != OPEN || c->close_sent) return;
    put_frame(c, 8, (const uint8_t *)"\x03\xe8", 2);
    c->close_sent = true;
    flush(c);
}

/* ---- reading ---- */

static int64_t get_hex(const uint8_t *p, int digits) {
    int64_t value = 0;
    int bad = 0;
    while (digits--) {
        int digit = hex_value[*p++];
        bad |= digit;
        value = value << 4 | (digit & 15);
    }
    return bad < 0 ? -1 : value;
}

static void got_message(struct client *c, const uint8_t *p, size_t size, uint64_t time) {
    int64_t sender, number;
    if (size != (size_t)opt.size || (sender = get_hex(p + 1, 4)) < 0 || sender >= opt.clients ||
        (number = get_hex(p + 5, 8)) < 0 || memcmp(p + PREFIX, filler, size - PREFIX)) {
        damaged++;
    } else if (sender == c->index) {
        echoed++;
    } else if (*p == 'P') {
        if (number == probes && c->probe != probes) probed++;
        c->probe = number;
    } else if (*p != 'M' || sender >= opt.senders) {
        damaged++;
    } else {
        if (c->next[sender] != number) misordered++;
        c->next[sender] = number + 1;
        if (c->stalled) return; /* read when the run is over: only the order is of interest */
        deliveries++;
        if (timing) {
            int64_t sent = get_hex(p + 13, 16);
            if (sample_count == sample_cap) {
                sample_cap = sample_cap ? sample_cap * 2 : 1 << 18;
                samples = need(realloc(samples, sample_cap * sizeof *samples));
            }
            samples[sample_count++] = (uint32_t)((time - sent) / 1000);
        }
    }
}

/* Handle the whole frames in p; return how many bytes they were. */
static size_t parse(struct client *c, const uint8_t *p, size_t len, uint64_t time) {
    size_t used = 0;
    while (c->state == OPEN && len - used >= 2) {
        const uint8_t *f = p + used;
        size_t size = f[1] & 127, header = 2;
        if (size == 126) {
            if (len - used < 4) break;
            size = f[2] << 8 | f[3];
            header = 4;
        }
        if (f[1] > 126) { /* masked, or longer than anything that we sent */
            damaged++;
            drop(c);
            break;
        }
        if (len - used < header + size) break;
        f += header;
        used += header + size;
        switch (f[-(ssize_t)header]) {
        case 0x81:
            got_message(c, f, size, time);
            break;
        case 0x88:
            c->close_code = size >= 2 ? f[0] << 8 | f[1] : 1005;
            if (c->close_sent) close_answers++;
            else if (!c->stalled) lost++;
            send_close(c);
            break;
        case 0x89:
            put_frame(c, 10, f, size);
            flush(c);
            pings_answered++;
            if (++c->pings == (uint32_t)opt.need_pings) pinged++;
            break;
        case 0x8a:
            break;
        default: /* fragments, binary or reserved bits: nothing that we sent comes back so */
            damaged++;
        }
    }
    return used;
}

/* Return the length of the HTTP answer once it is all there, 0 before. */
static size_t handshake_answer(const uint8_t *p, size_t len) {
    const uint8_t *end = memmem(p, len, "\r\n\r\n", 4);
    if (!end) return 0;
    errno = 0;
    if (memcmp(p, "HTTP/1.1 101", 12) || !memmem(p, end - p, ACCEPT, strlen(ACCEPT)))
        die("the upgrade was refused");
    return end + 4 - p;
}

static void can_read(struct client *c) {
    memcpy(input, c->carry, c->carry_len);
    ssize_t n = recv(c->fd, input + c->carry_len, READ_BYTES, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        if (c->state == HANDSHAKE) die("closed during the handshake");
        drop(c);
        return;
    }
    uint64_t time = now();
    uint64_t before = deliveries;
    size_t len = c->carry_len + n, used = 0;
    if (c->state == HANDSHAKE && (used = handshake_answer(input, len))) {
        c->state = OPEN;
        opened++;
        if (c->stalled) /* from here on it does not read */
            epoll_ctl(poller, EPOLL_CTL_DEL, c->fd, NULL);
    }
    if (c->state == OPEN) used += parse(c, input + used, len - used, time);
    if (deliveries != before) last_delivery = time;
    c->carry_len = len - used;
    reserve(&c->carry, &c->carry_cap, c->carry_len);
    memcpy(c->carry, input + used, c->carry_len);
}

static void can_write(struct client *c) {
    if (c->state != CONNECTING) {
        write_more(c);
        return;
    }
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if ((errno = error)) die("connect");
    char request[1024];
    int len = snprintf(request, sizeof request,
                       "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\n"
                       "Connection: Upgrade\r\nSec-WebSocket-Key: " KEY "\r\n"
                       "Sec-WebSocket-Version: 13\r\n\r\n", opt.path, opt.port);
    if (send(c->fd, request, len, MSG_NOSIGNAL) != len) die("request");
    c->state = HANDSHAKE;
    interest(c, false);
}

static void step(double seconds) {
    struct epoll_event events[256];
    int wait = seconds <= 0 ? 0 : (int)(seconds * 1000) + 1;
    int count = epoll_wait(poller, events, 256, wait);
    if (count < 0 && errno != EINTR) die("epoll_wait");
    for (int i = 0; i < count; i++) {
        struct client *c = events[i].data.ptr;
        if (c->state != CLOSED && events[i].events & EPOLLOUT) can_write(c);
        if (c->state != CLOSED && c->state != CONNECTING && events[i].events & ~EPOLLOUT)
            can_read(c);
    }
}

/* ---- the phases of a run ---- */

static void start_connect(struct client *c) {
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) die("socket");
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (c->stalled) {
        /* The small segment size keeps the server's send buffer for this client small as well:
           the kernel sizes it in segments, and on loopback those are 64 KiB otherwise. */
        int small = 2048, segment = 536;
        setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
        setsockopt(c->fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
    }
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(opt.port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) die("connect");
    c->want_write = true;
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &e)) die("epoll_ctl");
}

static double connect_all(void) {
    uint64_t start = now(), deadline = start + (uint64_t)(opt.timeout * 1e9);
    int started = 0;
    while (opened < total) {
        while (started < total && started - opened < opt.concurrency)
            start_connect(&clients[started++]);
        step(0.1);
        errno = ETIMEDOUT;
        if (now() > deadline) die("joining");
    }
    return (now() - start) / 1e9;
}

static void wait_until_registered(void) {
    uint64_t deadline = now() + (uint64_t)(opt.timeout * 1e9), next = 0;
    while (probes == 0 || probed < opt.clients - 1) {
        if (now() >= next) {
            probes++;
            probed = 0;
            put_message(&clients[0], 'P', probes);
            flush(&clients[0]);
            next = now() + 500000000u;
        }
        step(0.05);
        errno = ETIMEDOUT;
        if (now() > deadline) die("waiting for the probe");
    }
}

static void send_busily(void) {
    for (int i = 0; i < opt.senders; i++) {
        clients[i].to_send = opt.messages;
        write_more(&clients[i]);
    }
}

/* Return how many messages were sent. */
static uint64_t send_steadily(uint64_t start) {
    uint64_t count = (uint64_t)(opt.rate * opt.seconds), interval = (uint64_t)(1e9 / opt.rate);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t due = start + i * interval;
        for (uint64_t t = now(); t < due; t = now()) step((due - t) / 1e9 - 0.001);
        struct client *c = &clients[i % opt.senders];
        if (c->state != OPEN) continue; /* counted in `lost` */
        c->to_send++;
        put_message(c, 'M', c->sent++);
        flush(c);
    }
    return count;
}

/* Let the stalled clients read at last, and close everybody. */
static void close_all(void) {
    for (int i = 0; i < total; i++) {
        struct client *c = &clients[i];
        if (c->stalled && c->state == OPEN) {
            struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
            epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &e);
            c->want_write = false;
        }
        send_close(c);
    }
    uint64_t deadline = now() + 5000000000u;
    while (closed < total && now() < deadline) step(0.1);
}

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double percentile_ms(double share) {
    return sample_count ? samples[(size_t)(share * (sample_count - 1))] / 1000.0 : 0;
}

static void parse_options(int argc, char **argv) {
    static const struct option names[] = {
        {"mode", 1, 0, 'm'}, {"port", 1, 0, 'p'}, {"path", 1, 0, 'u'}, {"pid", 1, 0, 'i'},
        {"clients", 1, 0, 'n'}, {"senders", 1, 0, 's'}, {"stalled", 1, 0, 'x'},
        {"concurrency", 1, 0, 'c'}, {"size", 1, 0, 'b'}, {"need-pings", 1, 0, 'g'},
        {"rate", 1, 0, 'r'}, {"seconds", 1, 0, 't'}, {"timeout", 1, 0, 'o'},
        {"messages", 1, 0, 'k'}, {0, 0, 0, 0}};
    for (int o; (o = getopt_long(argc, argv, "", names, NULL)) != -1;) switch (o) {
        case 'm': opt.mode = optarg; break;
        case 'p': opt.port = atoi(optarg); break;
        case 'u': opt.path = optarg; break;
        case 'i': opt.pid = atoi(optarg); break;
        case 'n': opt.clients = atoi(optarg); break;
        case 's': opt.senders = atoi(optarg); break;
        case 'x': opt.stalled = atoi(optarg); break;
        case 'c': opt.concurrency = atoi(optarg); break;
        case 'b': opt.size = atoi(optarg); break;
        case 'g': opt.need_pings = atoi(optarg); break;
        case 'r': opt.rate = atof(optarg); break;
        case 't': opt.seconds = atof(optarg); break;
        case 'o': opt.timeout = atof(optarg); break;
        case 'k': opt.messages = strtoul(optarg, NULL, 10); break;
        default: exit(2);
        }
    errno = EINVAL;
    if (!opt.port || opt.clients < 2 || opt.clients > 0xffff || opt.senders < 1 ||
        opt.senders > opt.clients || opt.size < PREFIX || opt.size > MAX_SIZE || opt.rate <= 0)
        die("options");
}

int main(int argc, char **argv) {
    parse_options(argc, argv);
    bool idle = !strcmp(opt.mode, "idle"), connects = !strcmp(opt.mode, "connect");
    bool latency = !strcmp(opt.mode, "latency");

    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);

    memset(filler, 'x', sizeof filler);
    memset(hex_value, -1, sizeof hex_value);
    for (int i = 0; i < 16; i++) hex_value[(uint8_t)"0123456789abcdef"[i]] = i;
    total = opt.clients + opt.stalled;
    clients = need(calloc(total, sizeof *clients));
    for (int i = 0; i < total; i++) {
        clients[i].index = i;
        clients[i].stalled = i >= opt.clients;
        clients[i].next = need(calloc(opt.senders, sizeof(uint32_t)));
    }
    poller = epoll_create1(EPOLL_CLOEXEC);

    long rss_before = server_rss_kib();
    uint64_t cpu = server_cpu();
    double joining = connect_all();
    uint64_t expected = 0, sent = 0, start = now();
    if (!idle && !connects) {
        wait_until_registered();
        timing = latency;
        cpu = server_cpu();
        last_delivery = start = now();
        if (latency) {
            sent = send_steadily(start);
        } else {
            send_busily();
            sent = (uint64_t)opt.messages * opt.senders;
        }
        expected = sent * (opt.clients - 1);
        uint64_t deadline = now() + (uint64_t)(opt.timeout * 1e9);
        while (deliveries < expected && now() < deadline && lost < (uint64_t)opt.clients) step(0.1);
    } else if (idle) {
        uint64_t deadline = now() + (uint64_t)(opt.timeout * 1e9);
        while (opt.need_pings && pinged < total && now() < deadline) step(0.1);
        /* Let what the last pong set off come to rest. */
        for (uint64_t until = now() + 500000000u; now() < until;) step(0.1);
    }
    cpu = server_cpu() - cpu;
    double wall = (last_delivery > start ? last_delivery - start : 0) / 1e9;
    long rss_after = server_rss_kib();
    uint64_t delivered = deliveries;
    timing = false;
    bool waited = idle && opt.need_pings && pinged < total;
    close_all();

    bool complete = !waited && !damaged && !misordered && !echoed && !lost &&
                    delivered == expected && deliveries == expected;
    qsort(samples, sample_count, sizeof *samples, by_value);
    printf("{\"mode\": \"%s\", \"complete\": %s, \"clients\": %d, \"senders\": %d, "
           "\"messages\": %lu, \"expected\": %lu, \"deliveries\": %lu, \"damaged\": %lu, "
           "\"misordered\": %lu, \"echoed\": %lu, \"lost\": %lu, \"wall_s\": %.6f, "
           "\"deliveries_per_s\": %.1f, \"cpu_s\": %.6f, \"deliveries_per_cpu_s\": %.1f, "
           "\"p50_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f, \"joining_s\": %.6f, "
           "\"connects_per_s\": %.1f, \"pings_answered\": %lu, \"rss_before_kib\": %ld, "
           "\"rss_after_kib\": %ld, \"close_answers\": %lu, \"stalled_close_code\": %d}\n",
           opt.mode, complete ? "true" : "false", opt.clients, opt.senders, sent, expected,
           delivered, damaged, misordered, echoed, lost, wall, wall > 0 ? delivered / wall : 0,
           cpu / 1e9, cpu ? delivered / (cpu / 1e9) : 0, percentile_ms(0.5), percentile_ms(0.99),
           percentile_ms(1), joining, total / joining, pings_answered, rss_before, rss_after,
           close_answers, opt.stalled ? clients[total - 1].close_code : 0);
    return 0;
}
