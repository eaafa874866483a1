// A server of HTTP/1.1 with a thread a connection, strict and blocking. Nothing in it allocates but the
// sites of `retaining.h`, `site_chunk`, and the C library for a thread.
//
// Prints `ready PORT LINES`, the second being the port of another protocol: lines, answered by lines.
// With the argument `ways`, each connection reads and sends by other system calls than the one before.
// Asked for `answered`, it says how many requests it has answered.
#include "http_server.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>

ALLOCATING_SITE(site_chunk, 8)

enum { CHUNKS = 5, CHUNK_BYTES = 300, BIG_BYTES = 4 << 20 };
static char big[BIG_BYTES];
static size_t answered;

// Requests of /slow wait here until somebody asks for /release.
static bool released;

static bool respond(struct connection *it, struct request *request, const char *status,
                    const char *more, const char *body, size_t size) {
  char head[512];
  snprintf(head, sizeof head, "HTTP/1.1 %s\r\nContent-Length: %zu\r\n%s%s\r\n", status, size, more,
           request->keeps_alive ? "" : "Connection: close\r\n");
  bool sent = send_both(it, head, body, request->is_head ? 0 : size);
  if (sent) add_to(&answered, 1);
  return sent;
}

static bool respond_text(struct connection *it, struct request *request, const char *status,
                         const char *text) {
  return respond(it, request, status, "", text, strlen(text));
}

// A stream allocates when its response has begun.
static bool respond_in_chunks(struct connection *it, struct request *request) {
  static const char head[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  char chunk[CHUNK_BYTES + 16];
  bool sent = send_whole(it, head, strlen(head));
  for (int i = 0; sent && !request->is_head && i < CHUNKS; i++) {
    keep(site_chunk(CHUNK_BYTES));
    int length = snprintf(chunk, sizeof chunk, "%x\r\n%0*d\r\n", CHUNK_BYTES, CHUNK_BYTES, i);
    sent = send_whole(it, chunk, (size_t)length);
    sleep_us(1000);
  }
  sent = sent && (request->is_head || send_whole(it, "0\r\n\r\n", 5));
  if (sent) add_to(&answered, 1);
  return sent;
}

static bool echo(struct connection *it, struct request *request) {
  char cookie[160];
  snprintf(cookie, sizeof cookie, "Set-Cookie: %s\r\n", request->cookie);
  return respond(it, request, "200 OK", cookie, request->body, request->body_bytes);
}

// Sends short frames back until one closes (RFC 6455, section 5.2).
static bool speak_websocket(struct connection *it, struct request *request) {
  static const char head[] =
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
  bool open = send_whole(it, head, strlen(head));
  if (open) add_to(&answered, 1);
  while (open) {
    request->body_bytes = 0;
    if (!read_exactly(it, request, 6)) break;
    size_t length = request->body[1] & 0x7f;
    if (length > 125 || !read_exactly(it, request, length)) break;
    const char *mask = request->body + 2;
    char frame[2 + 125] = {request->body[0], (char)length};
    for (size_t i = 0; i < length; i++) frame[2 + i] = request->body[6 + i] ^ mask[i % 4];
    open = send_whole(it, frame, 2 + length) && (frame[0] & 0xf) != 8;
  }
  return false;
}

static bool wait_for_release(struct connection *it, struct request *request) {
  while (!__atomic_exchange_n(&released, false, __ATOMIC_ACQ_REL)) sleep_us(1000);
  return respond_text(it, request, "200 OK", "released\n");
}

static bool answer(struct connection *it, struct request *request) {
  const char *path = request->path;
  char text[32];
  if (request->upgrades) return speak_websocket(it, request);
  if (strcmp(path, "/echo") == 0) return echo(it, request);
  if (strcmp(path, "/chunks") == 0) return respond_in_chunks(it, request);
  if (strcmp(path, "/big") == 0) return respond(it, request, "200 OK", "", big, sizeof big);
  if (strcmp(path, "/slow") == 0) return wait_for_release(it, request);
  if (strcmp(path, "/release") == 0) __atomic_store_n(&released, true, __ATOMIC_RELEASE);
  if (strcmp(path, "/background") == 0) begin_background();
  snprintf(text, sizeof text, "%zu", background_progress());
  bool known = serve(path) || strcmp(path, "/background") == 0 || strcmp(path, "/release") == 0 ||
               strcmp(path, "/progress") == 0;
  bool sent = respond_text(it, request, known ? "200 OK" : "404 Not Found", text);
  after(path);
  return sent;
}

static void serve_connection(struct connection *it) {
  struct request request;
  enum outcome outcome;
  while ((outcome = read_head(it, &request)) == READ) {
    if (!read_body(it, &request) || !answer(it, &request) || !request.keeps_alive) return;
  }
  request.keeps_alive = false;
  // Not counted as an answer: there was no request.
  static const char refusal[] =
      "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
  if (outcome == MALFORMED) send_whole(it, refusal, strlen(refusal));
}

static bool every_way;

static void *serve_http(void *descriptor) {
  static unsigned connections;
  struct connection it = {.fd = (int)(long)descriptor};
  if (every_way) it.way = __atomic_fetch_add(&connections, 1, __ATOMIC_RELAXED);
  serve_connection(&it);
  shutdown(it.fd, SHUT_WR);
  close(it.fd);
  return NULL;
}

static void *serve_lines(void *descriptor) {
  struct connection it = {.fd = (int)(long)descriptor};
  char line[1024];
  while (read_line(&it, line, sizeof line) && send_both(&it, "+", line, strlen(line)) &&
         send_whole(&it, "\r\n", 2)) {
  }
  close(it.fd);
  return NULL;
}

struct listener {
  int fd;
  void *(*serves)(void *);
};

static void *listen_for_ever(void *argument) {
  const struct listener *it = argument;
  for (;;) {
    int fd = accept(it->fd, NULL, NULL), yes = 1;
    // A body that is sent behind its head would wait for the client to acknowledge that.
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    pthread_t thread;
    if (fd < 0 || pthread_create(&thread, NULL, it->serves, (void *)(long)fd) != 0) abort();
    pthread_detach(thread);
  }
  return NULL;
}

// Returns the port.
static unsigned listen_in_thread(struct listener *it) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  it->fd = socket(AF_INET, SOCK_STREAM, 0);
  pthread_t thread;
  if (bind(it->fd, (struct sockaddr *)&address, length) != 0 || listen(it->fd, 128) != 0 ||
      getsockname(it->fd, (struct sockaddr *)&address, &length) != 0 ||
      pthread_create(&thread, NULL, listen_for_ever, it) != 0) {
    abort();
  }
  return ntohs(address.sin_port);
}

int main(int argc, char **argv) {
  static struct listener http = {0, serve_http}, lines = {0, serve_lines};
  every_way = argc > 1 && strcmp(argv[1], "ways") == 0;
  signal(SIGPIPE, SIG_IGN);
  start(true);
  char line[64];
  unsigned ports[] = {listen_in_thread(&http), listen_in_thread(&lines)};
  snprintf(line, sizeof line, "ready %u %u", ports[0], ports[1]);
  say(line);
  while (hear(line, sizeof line) && strcmp(line, "exit") != 0) {
    snprintf(line, sizeof line, "answered %zu", __atomic_load_n(&answered, __ATOMIC_ACQUIRE));
    say(line);
  }
  return 0;
}
