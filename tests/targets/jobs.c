/* Jobs, each of which leaves behind a known amount: a function whose calls can be windows, and a pair of
 * static probes around it. A line on standard input is a command:
 *   job BYTES    does one job that keeps so many bytes, and frees as many again
 *   jump BYTES   the same, but the job is left by a longjmp
 *   nest BYTES   a job that does another one, each keeping so many bytes
 *   tail BYTES   a job that ends in a jump to another function
 *   last BYTES   a job that ends in a jump to malloc
 * and each is answered by "done". */
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the macros of SystemTap's sys/sdt.h make: a nop, and a note that tells of it. */
#define STATIC_PROBE(provider, name)                                                                  \
	__asm__ volatile("990: nop\n"                                                                 \
	                 ".pushsection .note.stapsdt,\"?\",\"note\"\n"                                \
	                 ".balign 4\n"                                                                \
	                 ".4byte 992f-991f, 994f-993f, 3\n"                                           \
	                 "991: .asciz \"stapsdt\"\n"                                                  \
	                 "992: .balign 4\n"                                                           \
	                 "993: .8byte 990b, _.stapsdt.base, " SEMAPHORE(name) "\n"                    \
	                 ".asciz \"" provider "\"\n.asciz \"" name "\"\n.asciz \"\"\n"                \
	                 "994: .balign 4\n"                                                           \
	                 ".popsection\n"                                                              \
	                 ".ifndef _.stapsdt.base\n"                                                   \
	                 ".pushsection .stapsdt.base,\"aG\",\"progbits\",.stapsdt.base,comdat\n"      \
	                 ".weak _.stapsdt.base\n.hidden _.stapsdt.base\n"                             \
	                 "_.stapsdt.base: .space 1\n.size _.stapsdt.base, 1\n"                        \
	                 ".popsection\n.endif\n")

#ifdef WITH_SEMAPHORES
#define SEMAPHORE(name) "jobs_semaphore"
__attribute__((section(".probes"), used)) unsigned short jobs_semaphore;
#else
#define SEMAPHORE(name) "0"
#endif

static jmp_buf outside;
static void *volatile kept[1 << 20];
static unsigned next;

__attribute__((noinline)) static void keep(size_t bytes)
{
	kept[next++ % (1 << 20)] = malloc(bytes);
}

/* It has a frame, and calls itself in earnest. */
__attribute__((noinline, optimize("no-optimize-sibling-calls"))) int handle_job(size_t bytes, int how)
{
	keep(bytes);
	void *volatile scratch = malloc(bytes);
	free(scratch);
	if (how == 'j')
		longjmp(outside, 1);
	if (how == 'n')
		return handle_job(bytes, 0) + 1;
	return how;
}

/* What it ends in returns in its stead. */
__attribute__((noinline)) int keep_and_say(size_t bytes)
{
	keep(bytes);
	return puts("kept") > 0;
}

__attribute__((noinline, optimize("optimize-sibling-calls"))) int tail_job(size_t bytes)
{
	keep(bytes);
	return keep_and_say(bytes);
}

static void *volatile last;

__attribute__((noinline, optimize("optimize-sibling-calls"))) void *last_job(size_t bytes)
{
	keep(bytes);
	return malloc(bytes);
}

static void marked_job(size_t bytes, int how)
{
	STATIC_PROBE("jobs", "job_start");
	handle_job(bytes, how);
	STATIC_PROBE("jobs", "job_done");
}

int main(void)
{
	char line[128], command[16];
	size_t bytes;

	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ready");
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "%15s %zu", command, &bytes) != 2)
			break;
		if (setjmp(outside) == 0) {
			if (strcmp(command, "tail") == 0)
				tail_job(bytes);
			else if (strcmp(command, "last") == 0)
				last = last_job(bytes);
			else
				marked_job(bytes, command[0] == 'j' && command[1] == 'o' ? 0 : command[0]);
		} else {
			STATIC_PROBE("jobs", "job_done");
		}
		puts("done");
	}
	return 0;
}
