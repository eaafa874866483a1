// One connection of a strict server of HTTP/1.1: reading and sending, in every way that there is.
#pragma once
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "retaining.h"

// The longest head that is taken is a little more than 64 KiB.
enum { BUFFER_BYTES = 128 << 10, BODY_BYTES = 64 << 10, WAYS_TO_READ = 4, WAYS_TO_SEND = 5 };

struct connection {
  int fd;
  // Which calls it uses: `way % WAYS_TO_READ`, and `way / WAYS_TO_READ`.
  unsigned way;
  // What was read and not yet used is from `used` to `filled`.
  size_t used, filled;
  char buffer[BUFFER_BYTES + 1];
};

struct request {
  char method[16], path[256], cookie[128];
  size_t length;
  bool chunked, keeps_alive, expects_continue, upgrades, is_head;
  size_t body_bytes;
  char body[BODY_BYTES];
};

static ssize_t receive(const struct connection *it, void *bytes, size_t size) {
  struct iovec part = {bytes, size};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  switch (it->way % WAYS_TO_READ) {
    case 0: return recv(it->fd, bytes, size, 0);
    case 1: return read(it->fd, bytes, size);
    case 2: return readv(it->fd, &part, 1);
    default: return recvmsg(it->fd, &message, 0);
  }
}

// Reads what there is. False at the end of the connection, or when the buffer is full.
static bool fill(struct connection *it) {
  if (it->used > 0) {
    memmove(it->buffer, it->buffer + it->used, it->filled - it->used);
    it->filled -= it->used;
    it->used = 0;
  }
  ssize_t got = receive(it, it->buffer + it->filled, BUFFER_BYTES - it->filled);
  if (got <= 0) return false;
  it->filled += (size_t)got;
  it->buffer[it->filled] = 0;
  return true;
}

static bool send_whole(const struct connection *it, const void *bytes, size_t size) {
  const char *rest = bytes;
  while (size > 0) {
    ssize_t sent = it->way / WAYS_TO_READ % WAYS_TO_SEND == 1 ? send(it->fd, rest, size, 0)
                                                              : write(it->fd, rest, size);
    if (sent <= 0) return false;
    rest += sent;
    size -= (size_t)sent;
  }
  return true;
}

// The body from a file.
static bool send_file(const struct connection *it, const char *body, size_t size) {
  int file = memfd_create("body", 0);
  bool written = file >= 0 && pwrite(file, body, size, 0) == (ssize_t)size;
  off_t at = 0;
  while (written && (size_t)at < size) written = sendfile(it->fd, file, &at, size - (size_t)at) > 0;
  close(file);
  return written;
}

// A head, and what follows it at once.
static bool send_both(const struct connection *it, const char *head, const char *body, size_t size) {
  struct iovec parts[] = {{(void *)head, strlen(head)}, {(void *)body, size}};
  struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
  ssize_t all = (ssize_t)(parts[0].iov_len + size);
  switch (it->way / WAYS_TO_READ % WAYS_TO_SEND) {
    case 2: return writev(it->fd, parts, 2) == all;
    case 3: return sendmsg(it->fd, &message, 0) == all;
    case 4: return send_whole(it, head, parts[0].iov_len) && send_file(it, body, size);
    default: return send_whole(it, head, parts[0].iov_len) && send_whole(it, body, size);
  }
}

static bool is_method(const char *name) {
  static const char *const known[] = {"GET",   "HEAD",  "POST",    "PUT",    "DELETE",
                                      "PATCH", "TRACE", "OPTIONS", "CONNECT"};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    if (strcmp(name, known[i]) == 0) return true;
  }
  return false;
}

static void read_header(struct request *request, const char *line) {
  const char *value = strchr(line, ':');
  if (!value) return;
  value += 1 + strspn(value + 1, " ");
  if (strncasecmp(line, "content-length:", 15) == 0) request->length = strtoul(value, NULL, 10);
  if (strncasecmp(line, "transfer-encoding: chunked", 26) == 0) request->chunked = true;
  if (strncasecmp(line, "connection: close", 17) == 0) request->keeps_alive = false;
  if (strncasecmp(line, "expect: 100-continue", 20) == 0) request->expects_continue = true;
  if (strncasecmp(line, "upgrade: websocket", 18) == 0) request->upgrades = true;
  if (strncasecmp(line, "cookie:", 7) == 0) {
    snprintf(request->cookie, sizeof request->cookie, "%.*s", (int)strcspn(value, "\r"), value);
  }
}

enum outcome { READ, CLOSED, MALFORMED };

// RFC 9112, section 2.2.
static void skip_empty_lines(struct connection *it) {
  while (strncmp(it->buffer + it->used, "\r\n", 2) == 0) it->used += 2;
}

// Reads one head, which may come byte by byte.
static enum outcome read_head(struct connection *it, struct request *request) {
  char *end;
  while (skip_empty_lines(it), !(end = strstr(it->buffer + it->used, "\r\n\r\n"))) {
    // Whatever begins with something else than a letter will not become a request.
    char first = it->buffer[it->used];
    if (it->filled > it->used && (first < 'A' || first > 'Z')) return MALFORMED;
    if (!fill(it)) return it->filled == BUFFER_BYTES ? MALFORMED : CLOSED;
  }
  *request = (struct request){.keeps_alive = true};
  char *line = it->buffer + it->used, version;
  if (sscanf(line, "%15[A-Z] %255[^ \r\n] HTTP/1.%c\r", request->method, request->path, &version) != 3) {
    return MALFORMED;
  }
  request->keeps_alive = version == '1';
  request->is_head = strcmp(request->method, "HEAD") == 0;
  request->path[strcspn(request->path, "?")] = 0;
  while ((line = strstr(line, "\r\n")) < end) read_header(request, line += 2);
  it->used = (size_t)(end + 4 - it->buffer);
  return is_method(request->method) ? READ : MALFORMED;
}

static bool read_exactly(struct connection *it, struct request *request, size_t size) {
  while (size > 0) {
    if (it->used == it->filled && !fill(it)) return false;
    size_t there = it->filled - it->used, part = there < size ? there : size;
    size_t room = BODY_BYTES - request->body_bytes, kept = part < room ? part : room;
    memcpy(request->body + request->body_bytes, it->buffer + it->used, kept);
    request->body_bytes += kept;
    it->used += part;
    size -= part;
  }
  return true;
}

// Up to the end of a line, which is left out.
static bool read_line(struct connection *it, char *line, size_t capacity) {
  for (size_t length = 0; length + 1 < capacity;) {
    if (it->used == it->filled && !fill(it)) return false;
    char byte = it->buffer[it->used++];
    if (byte == '\n') return line[length > 0 ? length - 1 : 0] = 0, true;
    line[length++] = byte;
  }
  return false;
}

// RFC 9112, section 7.1.
static bool read_chunks(struct connection *it, struct request *request) {
  for (char line[64];;) {
    if (!read_line(it, line, sizeof line)) return false;
    size_t size = strtoul(line, NULL, 16);
    if (!read_exactly(it, request, size) || !read_line(it, line, sizeof line)) return false;
    if (size == 0) return true;
  }
}

static bool read_body(struct connection *it, struct request *request) {
  static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
  if (request->expects_continue && !send_whole(it, go_on, strlen(go_on))) return false;
  if (request->chunked) return read_chunks(it, request);
  return read_exactly(it, request, request->length);
}
