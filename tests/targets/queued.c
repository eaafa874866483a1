// A server of HTTP/1.1 that has its work done by others: a thread a connection reads and answers, and puts what is
// to be done into a queue, from which four threads take it. Nothing else in it allocates once it is ready.
//
// `/leak` keeps 10,000 bytes a request, `/clean` none; `/own` keeps as many that its own thread has allocated, and has
// nothing kept by others. Argument: `blocking` or `polling`, how sockets are read.
// Prints `ready PORT`, and ends with its input.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WORKERS = 4, FRONTS = 16, MOST_WAITING = 64, MOST_KEPT = 1 << 16, KEPT_BYTES = 10000 };

struct job {
  int leaks, done;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t came = PTHREAD_COND_INITIALIZER, finished = PTHREAD_COND_INITIALIZER;
static struct job *waiting[MOST_WAITING];
static unsigned first, last, kept_count;
static void *kept[MOST_KEPT];
static int listening, polls;

static __attribute__((noinline)) void *site_leak(void) {
  void *block = malloc(KEPT_BYTES);
  if (block) memset(block, 1, KEPT_BYTES);
  return block;
}

static __attribute__((noinline)) void *site_own(void) {
  void *block = malloc(KEPT_BYTES);
  if (block) memset(block, 2, KEPT_BYTES);
  return block;
}

static void keep(void *block) {
  pthread_mutex_lock(&lock);
  kept[kept_count++ % MOST_KEPT] = block;
  pthread_mutex_unlock(&lock);
}

static __attribute__((noinline)) void site_clean(void) {
  char *volatile block = malloc(20000);
  free(block);
}

static void *work(void *unused) {
  (void)unused;
  pthread_mutex_lock(&lock);
  for (;;) {
    while (first == last) pthread_cond_wait(&came, &lock);
    struct job *job = waiting[first++ % MOST_WAITING];
    pthread_mutex_unlock(&lock);
    void *block = NULL;
    if (job->leaks)
      block = site_leak();
    else
      site_clean();
    pthread_mutex_lock(&lock);
    if (block) kept[kept_count++ % MOST_KEPT] = block;
    job->done = 1;
    pthread_cond_broadcast(&finished);
  }
  return NULL;
}

static __attribute__((noinline)) void have_done(int leaks) {
  struct job job = {leaks, 0};
  pthread_mutex_lock(&lock);
  waiting[last++ % MOST_WAITING] = &job;
  pthread_cond_signal(&came);
  while (!job.done) pthread_cond_wait(&finished, &lock);
  pthread_mutex_unlock(&lock);
}

static void serve(int fd) {
  static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
  char head[4096];
  size_t filled = 0;
  for (;;) {
    if (polls) poll(&(struct pollfd){fd, POLLIN, 0}, 1, -1);
    ssize_t count = read(fd, head + filled, sizeof head - 1 - filled);
    if (count <= 0) break;
    head[filled += count] = 0;
    if (!strstr(head, "\r\n\r\n")) continue;
    if (!strncmp(head, "GET /own ", 9)) keep(site_own());
    have_done(!strncmp(head, "GET /leak ", 10));
    if (write(fd, answer, sizeof answer - 1) < 0) break;
    filled = 0;
  }
  close(fd);
}

static void *front(void *unused) {
  (void)unused;
  for (;;) {
    int fd = accept4(listening, NULL, NULL, polls ? SOCK_NONBLOCK : 0);
    if (fd >= 0) serve(fd);
  }
  return NULL;
}

int main(int count, char **arguments) {
  polls = count > 1 && !strcmp(arguments[1], "polling");
  listening = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  if (bind(listening, (struct sockaddr *)&address, size) || listen(listening, 64)) abort();
  getsockname(listening, (struct sockaddr *)&address, &size);
  pthread_t thread;
  for (int i = 0; i < WORKERS; i++) pthread_create(&thread, NULL, work, NULL);
  for (int i = 0; i < FRONTS; i++) pthread_create(&thread, NULL, front, NULL);
  printf("ready %d\n", ntohs(address.sin_port));
  fflush(stdout);
  while (getchar() != EOF);
}
