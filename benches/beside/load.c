/* The load that wrk, h2load and curl cannot make: handshakes, idle connections, HEAD, pulls by many, pushes.
 *
 *     cc -O2 -pthread -o load load.c -lssl -lcrypto
 *     load handshakes|get|push|idle OPTIONS
 *
 *   -p PORT          on 127.0.0.1, the only address it speaks to, with TLS 1.3
 *   -c CONNECTIONS   at once, each with a thread of its own (idle: opened one after the other)
 *   -s SECONDS       of the window in which is counted      -w SECONDS   of warming up before it
 *   -n NUMBER        instead of a window: all from the first to the NUMBERth
 *   -a SIGALGS       signature algorithms that we can verify (handshakes: which certificate is shown)
 *   -r               resume sessions (handshakes)
 *   -M METHOD  -P PATH  -A AUTHORIZATION  -H "ACCEPT"       of each request (get, idle)
 *   -e STATUS  -l LENGTH                                    what each answer must be; LENGTH of HEAD is what it says
 *   -f FILE  -b BYTES  -t TAILS  -R REPOSITORY  -k          push: a blob is the first BYTES of FILE and then the tail of
 *                                                           one line of TAILS ("HEX DIGEST"); -k streams it, as docker
 *                                                           does: POST, PATCH in chunks, PUT; else POST, PUT
 *
 * It prints "begin", then "end" and what happened in between as JSON, each as it happens, so that whoever reads can look
 * at the server at these moments. An answer that is not what was asked for is an error, never an operation; the first one
 * is told on stderr.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEADER = 32768, PIECE = 262144, CHUNK = 32768, TAIL = 64, BUCKETS = 2048 };

static int port, connections = 1, resumed, streamed, status = 200;
static double seconds, warming;
static long number, length = -1, prefix;
static const char *mode, *method = "GET", *path = "/v2/", *authorization, *accepted, *algorithms, *file, *tails, *repository;

static SSL_CTX *tls;
static const char *content;      /* FILE, mapped */
static char **tail_lines;
static long tail_count;
static atomic_long next, errors; /* the next operation; what went wrong */
static atomic_int counting, stopping;

struct worker {
    pthread_t thread;
    int id, fd;
    SSL *ssl;
    SSL_SESSION *session;
    atomic_long operations, bytes, reused, times[BUCKETS];
    char buffer[PIECE + 1];
};
static __thread struct worker *self;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

/* Times in microseconds, in buckets that are 1/64 of their value wide. */
static int bucket(double us) {
    int e = 0;
    for (; us >= 128; us /= 2) e++;
    int b = e ? 64 + e * 64 + (int)us - 64 : (int)us;
    return b < BUCKETS ? b : BUCKETS - 1;
}
static double middle(int b) {
    if (b < 128) return b + 0.5;
    int e = b / 64 - 1;
    return (b - e * 64 + 0.5) * (double)(1L << e);
}

static int wrong(const char *format, ...) {
    if (stopping) return -1; /* what is cut off at the end is no error */
    if (!errors++) {
        va_list list;
        va_start(list, format);
        fputs("load: ", stderr);
        vfprintf(stderr, format, list);
        fputc('\n', stderr);
        ERR_print_errors_fp(stderr);
        va_end(list);
    }
    return -1;
}

static int remember(SSL *ssl, SSL_SESSION *session) {
    (void)ssl;
    if (self->session) SSL_SESSION_free(self->session);
    self->session = session;
    return 1;
}

/* ---- connections */

static int open_connection(void) {
    int one = 1;
    struct timeval patience = {60, 0};
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET, .sin_port = htons(port)};
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + self->id % 32); /* so that ports do not run out */
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(fd, (void *)&from, sizeof from) || connect(fd, (void *)&to, sizeof to)) {
        close(fd);
        return wrong("connect: %s", strerror(errno));
    }
    SSL *ssl = SSL_new(tls);
    SSL_set_fd(ssl, fd);
    SSL_set_tlsext_host_name(ssl, "localhost");
    if (resumed && self->session) {
        SSL_SESSION *copy = SSL_SESSION_dup(self->session);
        SSL_set_session(ssl, copy);
        SSL_SESSION_free(copy);
    }
    if (SSL_connect(ssl) != 1) {
        SSL_free(ssl);
        close(fd);
        return wrong("handshake");
    }
    self->fd = fd;
    self->ssl = ssl;
    return 0;
}

static void close_connection(void) {
    if (!self->ssl) return;
    SSL_shutdown(self->ssl);
    SSL_free(self->ssl);
    close(self->fd);
    self->ssl = NULL;
}

/* Waits until the server has closed too: then it is done with this connection. */
static void part(void) {
    char rest[4096];
    SSL_shutdown(self->ssl);
    shutdown(self->fd, SHUT_WR);
    while (SSL_read(self->ssl, rest, sizeof rest) > 0) {} /* tickets come on the way */
    SSL_set_quiet_shutdown(self->ssl, 1);
    close_connection();
}

/* ---- requests */

static int put(const char *data, long size) {
    while (size > 0) {
        int done = SSL_write(self->ssl, data, size < PIECE ? size : PIECE);
        if (done <= 0) return wrong("%s: the connection broke while it was sent", mode);
        data += done;
        size -= done;
    }
    return 0;
}

static const char *field(const char *name) {
    char *found = strcasestr(self->buffer, name);
    return found ? found + strlen(name) : NULL;
}

/* Reads an answer. Its header, ended with 0, stays at the beginning of the buffer unless a body came after it. */
static int answer(int expected, long size, const char *what, int head, char *location) {
    char *end = NULL, *buffer = self->buffer;
    long have = 0;
    while (!end) {
        int got = have < HEADER ? SSL_read(self->ssl, buffer + have, HEADER - have) : 0;
        if (got <= 0) return wrong("%s: no answer (%ld bytes of it)", what, have);
        have += got;
        buffer[have] = 0;
        end = strstr(buffer, "\r\n\r\n");
    }
    *end = 0;
    long body = have - (end + 4 - buffer);
    int code = atoi(buffer + 9);
    if (code != expected) return wrong("%s: %d, not %d\n%s\n%.500s", what, code, expected, buffer, end + 4);
    const char *announced = field("\r\ncontent-length:");
    if (!announced) return wrong("%s: no Content-Length\n%s", what, buffer);
    long whole = atol(announced);
    if (size >= 0 && whole != size) return wrong("%s: %ld bytes, not %ld\n%s", what, whole, size, buffer);
    int last = field("\r\nconnection: close") != NULL;
    if (location) {
        const char *at = field("\r\nlocation:");
        if (!at) return wrong("%s: no Location\n%s", what, buffer);
        at += strspn(at, " ");
        const char *scheme = strstr(at, "://");
        if (scheme && scheme < at + 8) at = strchr(scheme + 3, '/');
        snprintf(location, HEADER, "%.*s", (int)strcspn(at, "\r\n"), at);
    }
    if (head) whole = 0;
    self->bytes += body;
    while (body < whole && !stopping) {
        int got = SSL_read(self->ssl, buffer, PIECE);
        if (got <= 0) return wrong("%s: the body ended at %ld of %ld", what, body, whole);
        body += got;
        self->bytes += got;
    }
    if (stopping) return -1;
    if (body != whole) return wrong("%s: %ld bytes in place of %ld", what, body, whole);
    if (last) close_connection();
    return 0;
}

static int ask(const char *verb, const char *target, const char *fields) {
    char request[HEADER];
    if (!self->ssl && open_connection()) return -1;
    int size = snprintf(request, sizeof request,
                        "%s %s HTTP/1.1\r\nHost: localhost:%d\r\nUser-Agent: load\r\nAccept: %s\r\n%s%s%s%s\r\n", verb,
                        target, port, accepted ? accepted : "*/*", authorization ? "Authorization: " : "",
                        authorization ? authorization : "", authorization ? "\r\n" : "", fields);
    return put(request, size);
}

/* ---- operations: 0 when done, -1 when not */

static int handshake(void) {
    if (open_connection()) return -1;
    if (SSL_session_reused(self->ssl)) self->reused++;
    part();
    return 0;
}

static int get(void) {
    if (ask(method, path, "")) return -1;
    return answer(status, length, path, !strcmp(method, "HEAD"), NULL);
}

static int put_chunks(const char *tail) {
    static __thread char chunks[PIECE + 4096];
    for (long at = 0; at < prefix;) {
        char *to = chunks;
        while (at < prefix && to - chunks < PIECE - CHUNK) {
            long size = prefix - at < CHUNK ? prefix - at : CHUNK;
            to += sprintf(to, "%lx\r\n", size);
            to = mempcpy(to, content + at, size);
            to = mempcpy(to, "\r\n", 2);
            at += size;
        }
        if (put(chunks, to - chunks)) return -1;
    }
    int size = sprintf(chunks, "%x\r\n%.*s\r\n0\r\n\r\n", TAIL, TAIL, tail);
    return put(chunks, size);
}

static int push(long which) {
    char location[HEADER], target[HEADER + 256], fields[128];
    if (which >= tail_count) return wrong("push: no more tails");
    const char *tail = tail_lines[which], *digest = tail + TAIL + 1;
    snprintf(target, sizeof target, "/v2/%s/blobs/uploads/", repository);
    if (ask("POST", target, "Content-Length: 0\r\n") || answer(202, -1, "POST", 0, location)) return -1;
    if (streamed) {
        if (ask("PATCH", location, "Content-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n")) return -1;
        if (put_chunks(tail) || answer(202, -1, "PATCH", 0, location)) return -1;
    }
    snprintf(target, sizeof target, "%s%cdigest=%s", location, strchr(location, '?') ? '&' : '?', digest);
    snprintf(fields, sizeof fields, "Content-Type: application/octet-stream\r\nContent-Length: %ld\r\n",
             streamed ? 0 : prefix + TAIL);
    if (ask("PUT", target, fields)) return -1;
    if (!streamed && (put(content, prefix) || put(tail, TAIL))) return -1;
    if (answer(201, -1, "PUT", 0, NULL)) return -1;
    self->bytes += prefix + TAIL;
    return 0;
}

static void *work(void *worker) {
    self = worker;
    char first = *mode;
    if (resumed) { /* a session to resume; a failure shows in the first operation */
        if (!open_connection()) part();
    }
    while (!stopping) {
        long which = next++;
        if (number && which >= number) break;
        double begun = now();
        int failed = first == 'h' ? handshake() : first == 'g' ? get() : push(which);
        if (failed) {
            close_connection();
            if (errors > 20) break;
        } else if (counting) {
            self->operations++;
            self->times[bucket((now() - begun) * 1e6)]++;
        }
    }
    close_connection();
    return NULL;
}

/* ---- the whole */

static void idle(void) {
    struct worker *one = self = calloc(1, sizeof *one);
    long open = 0;
    for (int i = 0; i < connections; i++) {
        one->id = i;
        one->ssl = NULL;
        if (!get() && one->ssl) open++;
    }
    printf("begin\n");
    fflush(stdout);
    while (getchar() != EOF) {} /* whoever started us says when it is enough */
    printf("end {\"operations\": %ld, \"errors\": %ld}\n", open, (long)errors);
    exit(errors ? 1 : 0);
}

struct sums { long operations, bytes, reused, times[BUCKETS]; };

static struct sums sum(struct worker *workers) {
    struct sums all = {0};
    for (int i = 0; i < connections; i++) {
        all.operations += workers[i].operations;
        all.bytes += workers[i].bytes;
        all.reused += workers[i].reused;
        for (int b = 0; b < BUCKETS; b++) all.times[b] += workers[i].times[b];
    }
    return all;
}

static double percentile(struct sums *all, double part) {
    long seen = 0;
    for (int b = 0; b < BUCKETS; b++)
        if ((seen += all->times[b]) && seen >= part * all->operations) return middle(b);
    return 0;
}

static void pause_for(double time) {
    struct timespec t = {(time_t)time, (long)((time - (time_t)time) * 1e9)};
    nanosleep(&t, NULL);
}

static void read_push(void) {
    int fd = open(file, O_RDONLY);
    FILE *lines = fopen(tails, "r");
    if (fd < 0 || !lines) exit(wrong("%s, %s: %s", file, tails, strerror(errno)) ? 2 : 0);
    content = mmap(NULL, prefix ? prefix : 1, PROT_READ, MAP_SHARED, fd, 0);
    char *line = NULL;
    size_t room = 0;
    for (ssize_t got; (got = getline(&line, &room, lines)) > TAIL + 1;) {
        line[got - 1] = 0;
        tail_lines = realloc(tail_lines, (tail_count + 1) * sizeof *tail_lines);
        tail_lines[tail_count++] = strdup(line);
    }
}

int main(int count, char **words) {
    mode = count > 1 ? words[1] : "";
    optind = 2;
    for (int option; (option = getopt(count, words, "p:c:s:w:n:a:rM:P:A:H:e:l:f:b:t:R:k")) != -1;) switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'c': connections = atoi(optarg); break;
        case 's': seconds = atof(optarg); break;
        case 'w': warming = atof(optarg); break;
        case 'n': number = atol(optarg); break;
        case 'a': algorithms = optarg; break;
        case 'r': resumed = 1; break;
        case 'M': method = optarg; break;
        case 'P': path = optarg; break;
        case 'A': authorization = optarg; break;
        case 'H': accepted = optarg; break;
        case 'e': status = atoi(optarg); break;
        case 'l': length = atol(optarg); break;
        case 'f': file = optarg; break;
        case 'b': prefix = atol(optarg); break;
        case 't': tails = optarg; break;
        case 'R': repository = optarg; break;
        case 'k': streamed = 1; break;
        default: return 2;
    }
    int known = !strcmp(mode, "handshakes") || !strcmp(mode, "get") || !strcmp(mode, "idle") ||
                (!strcmp(mode, "push") && file && tails && repository);
    if (!known || !port || connections < 1) return fputs("load: see the head of load.c\n", stderr), 2;
    signal(SIGPIPE, SIG_IGN);

    tls = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(tls, TLS1_3_VERSION);
    SSL_CTX_set_ciphersuites(tls, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"); /* Go's */
    SSL_CTX_set1_groups_list(tls, "X25519:P-256");
    SSL_CTX_set_verify(tls, SSL_VERIFY_NONE, NULL); /* the chain is looked at before, once */
    SSL_CTX_set_mode(tls, SSL_MODE_AUTO_RETRY);
    SSL_CTX_set_options(tls, SSL_OP_IGNORE_UNEXPECTED_EOF);
    if (algorithms && !SSL_CTX_set1_sigalgs_list(tls, algorithms)) return wrong("signature algorithms"), 2;
    if (*mode == 'g' || *mode == 'p') {
        SSL_CTX_set_read_ahead(tls, 1);
        SSL_CTX_set_default_read_buffer_len(tls, 131072);
    } else if (*mode == 'i') {
        SSL_CTX_set_mode(tls, SSL_MODE_RELEASE_BUFFERS);
    }
    SSL_CTX_set_session_cache_mode(tls, resumed ? SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL : SSL_SESS_CACHE_OFF);
    SSL_CTX_sess_set_new_cb(tls, remember);
    if (*mode == 'p') read_push();
    if (*mode == 'i') idle();

    struct worker *workers = calloc(connections, sizeof *workers);
    double begun = now();
    struct sums before = {0};
    if (number) {
        counting = 1;
        printf("begin\n");
        fflush(stdout);
    }
    for (int i = 0; i < connections; i++) {
        workers[i].id = i;
        pthread_create(&workers[i].thread, NULL, work, &workers[i]);
    }
    if (!number) {
        pause_for(warming);
        counting = 1;
        before = sum(workers);
        begun = now();
        printf("begin\n");
        fflush(stdout);
        pause_for(seconds);
    } else {
        for (int i = 0; i < connections; i++) pthread_join(workers[i].thread, NULL);
    }
    struct sums after = sum(workers);
    double took = now() - begun;
    long failed = errors;
    stopping = 1;
    printf("end {\"operations\": %ld, \"bytes\": %ld, \"reused\": %ld, \"errors\": %ld, \"seconds\": %.6f, \"p50\": %.6f, "
           "\"p99\": %.6f}\n", after.operations - before.operations, after.bytes - before.bytes,
           after.reused - before.reused, failed, took, percentile(&after, 0.5) / 1e6, percentile(&after, 0.99) / 1e6);
    fflush(stdout);
    if (!number)
        for (int i = 0; i < connections; i++) {
            shutdown(workers[i].fd, SHUT_RDWR); /* whoever waits, waits no longer */
            pthread_join(workers[i].thread, NULL);
        }
    return failed ? 1 : 0;
}
