/* An extension module that lies about the interpreter's own structures to whoever looks from outside.
 *
 * lie(rounds): for each lie, points the thread's state to a false frame, allocates LIE + n bytes, and
 * sets the state right again before the interpreter could notice. Then, `rounds` times, allocates
 * MADE_UP bytes at an instruction, and in code, that do not exist. Returns the number of lies.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define LIE 50001
#define MADE_UP 49999
#define UNMAPPED 0x10000ull
#define KERNEL 0xffffffff81000000ull
#define NOT_CANONICAL 0x8000000000000008ull
#define HUGE_LENGTH (1ull << 60)

/* Offsets in bytes, as in residue's own tables. */
#if PY_VERSION_HEX >= 0x030d0000
enum { FRAME = 72, PREVIOUS = 8, CODE = 0, INSTRUCTION = 56, ENTRY = 70 };
#elif PY_VERSION_HEX >= 0x030c0000
enum { FRAME = 0, PREVIOUS = 8, CODE = 0, INSTRUCTION = 56, ENTRY = 70 };
#elif PY_VERSION_HEX >= 0x030b0000
enum { FRAME = 8, PREVIOUS = 48, CODE = 32, INSTRUCTION = 56, ENTRY = 68 };
#elif PY_VERSION_HEX >= 0x030a0000
enum { FRAME = 24, PREVIOUS = 24, CODE = 32, INSTRUCTION = 96, ENTRY = 120 };
#else
enum { FRAME = 24, PREVIOUS = 24, CODE = 32, INSTRUCTION = 104, ENTRY = 120 };
#endif
#if PY_VERSION_HEX >= 0x030c0000
enum { FIRST_LINE = 68, FILENAME = 112, NAME = 128, LINES = 136 };
#elif PY_VERSION_HEX >= 0x030b0000
enum { FIRST_LINE = 72, FILENAME = 112, NAME = 128, LINES = 136 };
#else
enum { FIRST_LINE = 40, FILENAME = 104, NAME = 112, LINES = 120 };
#endif
enum { TYPE = 8, LENGTH = 16, STATE = 32, BYTES = 32, OBJECT = 512, CFRAME = 56 };

typedef unsigned char *object;

static uint64_t *word(object at, int offset) { return (uint64_t *)(at + offset); }

/* The pointer to the current frame. Volatile: a compiler knows that malloc does not read it. */
static volatile uint64_t *current(void)
{
    object state = (object)PyThreadState_Get();
#if PY_VERSION_HEX >= 0x030b0000 && PY_VERSION_HEX < 0x030d0000
    state = (object)*word(state, CFRAME);
#endif
    return word(state, FRAME);
}

/* Copies live in pages of their own, with nothing behind them. */
static object pages(size_t bytes)
{
    object start = mmap(NULL, bytes + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED)
        abort();
    munmap(start + bytes, 4096);
    return start;
}

static object copy(uint64_t of)
{
    object made = pages(4096);
    memcpy(made, (void *)of, 200);
    return made;
}

static void *volatile block;

static int lies;

/* Allocates while the thread seems to run `frame`. */
static void lie(uint64_t frame)
{
    volatile uint64_t *slot = current(), truth = *slot;
    *slot = frame;
    block = malloc(LIE + lies++);
    *slot = truth;
}

static object frame_of(uint64_t previous, uint64_t code)
{
    object frame = copy(*current());
    *word(frame, PREVIOUS) = previous;
    if (code)
        *word(frame, CODE) = code;
    return frame;
}

/* Names: what a false object leads to. */
static void lie_in_code(int field, uint64_t to)
{
    object code = copy(*word((object)*current(), CODE) & ~7ull);
    *word(code, field) = to;
    lie((uint64_t)frame_of(0, (uint64_t)code));
}

static object text(uint64_t length, uint32_t state)
{
    object made = copy(*word((object)(*word((object)*current(), CODE) & ~7ull), NAME));
    *word(made, LENGTH) = length;
    *(uint32_t *)(made + STATE) = state;
    return made;
}

static object table(uint64_t claims, size_t has, int filled_with)
{
    object made = pages((has + 4095) & ~4095ull);
    *word(made, LENGTH) = claims;
    memset(made + BYTES, filled_with, has - BYTES);
    return made;
}

static void lie_in_frames(void)
{
    uint64_t bad[] = {UNMAPPED, KERNEL, NOT_CANONICAL, ~0ull, 1, (uint64_t)pages(4096) + 4090};
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        lie(bad[i]);
        lie((uint64_t)frame_of(bad[i], 0));
        lie((uint64_t)frame_of(*current(), bad[i]));
    }
    lie(0);
    object loop = frame_of(0, 0), other = frame_of((uint64_t)loop, 0);
    *word(loop, PREVIOUS) = (uint64_t)loop;
    lie((uint64_t)loop);
    *word(loop, PREVIOUS) = (uint64_t)other;
    lie((uint64_t)loop);
    for (int owner = 0; owner < 256; owner += 85) {
        loop[ENTRY] = other[ENTRY] = owner;
        lie((uint64_t)loop);
    }
    /* A hundred thousand frames. */
    size_t bytes = 128, count = 100000;
    object chain = pages(bytes * count / 4096 * 4096);
    for (size_t i = 0; i + 32 < count; i++) {
        memcpy(chain + i * bytes, (void *)*current(), bytes);
        *word(chain + i * bytes, PREVIOUS) = (uint64_t)(chain + (i + 1) * bytes);
    }
    lie((uint64_t)chain);
}

static void lie_in_names(void)
{
    int fields[] = {NAME, FILENAME, LINES};
    uint64_t bad[] = {0, UNMAPPED, KERNEL, NOT_CANONICAL, ~0ull, (uint64_t)pages(4096) + 4090};
    for (int i = 0; i < 3; i++)
        for (unsigned j = 0; j < sizeof bad / sizeof *bad; j++)
            lie_in_code(fields[i], bad[j]);
    uint64_t lengths[] = {HUGE_LENGTH, ~0ull, 1ull << 32, 100000};
    for (int i = 0; i < 2; i++)
        for (unsigned j = 0; j < sizeof lengths / sizeof *lengths; j++) {
            lie_in_code(fields[i], (uint64_t)text(lengths[j], 0x64));
            lie_in_code(fields[i], (uint64_t)text(lengths[j], 0x30));
            lie_in_code(fields[i], (uint64_t)text(lengths[j], ~0u));
        }
    size_t mib = 1 << 20;
    lie_in_code(LINES, (uint64_t)table(HUGE_LENGTH, 4096, 0));
    lie_in_code(LINES, (uint64_t)table(~0ull, 2 * mib, 0x7f));
    lie_in_code(LINES, (uint64_t)table(64 * mib, 64 * mib, 0xff));
    lie_in_code(LINES, (uint64_t)table(64 * mib, 64 * mib, 0xf7));
    lie_in_code(LINES, (uint64_t)table(64 * mib, 64 * mib, 0x01));
    lie_in_code(FIRST_LINE & ~7, ~0ull);
    lie_in_code(TYPE, UNMAPPED);
    lie_in_code(TYPE, (uint64_t)&PyType_Type);
    lie_in_code(TYPE, 0);
}

/* Places that do not exist, each another: in code with a long line table, and in no code at all. */
static void make_up(long rounds)
{
    object code = copy(*word((object)*current(), CODE) & ~7ull), nothing = pages(1 << 20);
    *word(code, LINES) = (uint64_t)table(1 << 20, 1 << 20, 0xf0);
    object frame = frame_of(0, (uint64_t)code), other = frame_of((uint64_t)frame, 0);
    *word(frame, PREVIOUS) = (uint64_t)other;
    volatile uint64_t *slot = current(), truth = *slot;
    for (long i = 0; i < rounds; i++) {
        *word(frame, INSTRUCTION) = (uint64_t)code + 2 * i;
        *word(other, INSTRUCTION) = 2 * i;
        *word(other, CODE) = (uint64_t)nothing + 8 * i;
        *slot = (uint64_t)frame;
        block = malloc(MADE_UP);
        *slot = truth;
    }
}

static PyObject *tell_lies(PyObject *self, PyObject *arguments)
{
    long rounds;
    if (!PyArg_ParseTuple(arguments, "l", &rounds))
        return NULL;
    lie_in_frames();
    lie_in_names();
    make_up(rounds);
    return PyLong_FromLong(lies);
}

static PyMethodDef methods[] = {
    {"lie", tell_lies, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "hostile", NULL, -1, methods, NULL, NULL,
                                    NULL, NULL};

PyMODINIT_FUNC PyInit_hostile(void)
{
    return PyModule_Create(&module);
}
