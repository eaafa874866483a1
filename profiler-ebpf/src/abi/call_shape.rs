//! How a probed function takes its arguments and returns its result.

/// What a probed function does, as far as its signature says so. One pair of programs serves each shape,
/// whatever name the function has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum CallShape {
    /// `void *f(size_t size, …)`: malloc, valloc, operator new, mallocx.
    Malloc,
    /// `void *f(size_t count, size_t size)`: calloc.
    Calloc,
    /// `void *f(void *old, size_t size, …)`: realloc. NULL with a size above zero keeps the old
    /// block; size zero frees it.
    Realloc,
    /// `void *f(void *old, size_t count, size_t size)`: reallocarray.
    ReallocArray,
    /// `void *f(size_t alignment, size_t size)`: aligned_alloc, memalign.
    AlignedAlloc,
    /// `int f(void **out, size_t alignment, size_t size)`: posix_memalign. The function writes the block to
    /// `*out`, and only if the result is zero.
    PosixMemalign,
    /// `size_t f(void *block, size_t size, size_t extra, int flags)`: jemalloc's xallocx, which
    /// resizes in place and returns the new usable size.
    ResizeInPlace,
    /// `void *f(void *old, size_t old_size, size_t alignment, size_t size)`: `__rust_realloc`.
    RustRealloc,
    /// `void f(void *block, …)`: free, sized or not, operator delete, dallocx, sdallocx.
    Free,
    /// Any signature: a function around a memory-mapping syscall. The probe only notes the caller, in case no
    /// unwind table covers the function.
    NoteCaller,
    /// `void f(PyCodeObject *code)`: frees a code object.
    PythonCodeFreed,
    /// `void *f(void *ctx, size_t size)`: `malloc` of a `PyMemAllocatorEx` (Include/cpython/pymem.h).
    PythonMalloc,
    /// `void *f(void *ctx, size_t count, size_t size)`: `calloc` of a `PyMemAllocatorEx`.
    PythonCalloc,
    /// `void *f(void *ctx, void *old, size_t size)`: `realloc` of a `PyMemAllocatorEx`. The old block
    /// stays if the result is NULL.
    PythonRealloc,
    /// `void f(void *ctx, void *block)`: `free` of a `PyMemAllocatorEx`.
    PythonFree,
    /// `PyContext *f(…)`: makes a context of `contextvars`.
    PythonContextMade,
    /// `void f(PyContext *context)`: frees a context of `contextvars`.
    PythonContextFreed,
    /// `PyObject *f(PyObject *self, PyObject *const *args, …)`: puts the first of `args` into a queue.
    PythonItemPut,
    /// `PyObject *f(…)`: takes an item out of a queue; NULL if there is none.
    PythonItemTaken,
    /// No function: an instruction by which a function of the shape [`Self::PythonItemTaken`] returns.
    PythonItemReturned,
    /// `void *f(…)`: takes a pool for pymalloc, and returns the first block in it.
    PythonNewPool,
    /// `int f(SSL *ssl, void *buf, int num)`: `SSL_read` (openssl/ssl.h). Returns how many bytes the function
    /// has read, or zero or less.
    SslRead,
    /// `int f(SSL *ssl, void *buf, size_t num, size_t *readbytes)`: `SSL_read_ex`. Writes the number
    /// of bytes to `*readbytes`, and only if the result is 1.
    SslReadEx,
    /// `int f(SSL *ssl, const void *buf, int num)`: `SSL_write`. Returns how many bytes the
    /// function has taken.
    SslWrite,
    /// `int f(SSL *ssl, const void *buf, size_t num, size_t *written)`: `SSL_write_ex`.
    SslWriteEx,
    /// `… f(SSL *ssl)`: after `SSL_free` or `SSL_shutdown` the connection serves no further request.
    SslFree,
    /// Any signature: each call is a window, which the return probe closes.
    WindowFunction,
    /// Any signature: each call is a window, which a probe of the shape [`Self::WindowLeave`] closes.
    WindowEnter,
    /// No function: an instruction by which a call returns. The call's frame is gone by then, so the stack
    /// pointer is where it was at entry.
    WindowLeave,
    /// No function: an instruction at which a window opens.
    WindowOpen,
    /// No function: an instruction at which a window closes.
    WindowClose,
}

/// When a function must be attached relative to other functions, lowest first. Detaching needs no order, because the
/// process is closed by then.
///
/// An allocation whose free no probe sees would be outstanding for ever. So functions that can release memory
/// are attached before functions that can take memory. A window whose end no probe sees would stay open, so
/// the same holds for windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AttachRank {
    /// The function only releases.
    Releases,
    /// The function releases and takes.
    Moves,
    /// The function only takes.
    Takes,
}

impl CallShape {
    /// Every shape, in the order of their discriminants.
    pub const ALL: [Self; 31] = [
        Self::Malloc,
        Self::Calloc,
        Self::Realloc,
        Self::ReallocArray,
        Self::AlignedAlloc,
        Self::PosixMemalign,
        Self::ResizeInPlace,
        Self::RustRealloc,
        Self::Free,
        Self::NoteCaller,
        Self::PythonCodeFreed,
        Self::PythonMalloc,
        Self::PythonCalloc,
        Self::PythonRealloc,
        Self::PythonFree,
        Self::PythonContextMade,
        Self::PythonContextFreed,
        Self::PythonItemPut,
        Self::PythonItemTaken,
        Self::PythonItemReturned,
        Self::PythonNewPool,
        Self::SslRead,
        Self::SslReadEx,
        Self::SslWrite,
        Self::SslWriteEx,
        Self::SslFree,
        Self::WindowFunction,
        Self::WindowEnter,
        Self::WindowLeave,
        Self::WindowOpen,
        Self::WindowClose,
    ];

    /// When to attach functions of this shape.
    #[must_use]
    pub const fn attach_rank(self) -> AttachRank {
        match self {
            Self::Free
            | Self::PythonCodeFreed
            | Self::PythonContextFreed
            | Self::PythonItemTaken
            | Self::PythonItemReturned
            | Self::PythonFree
            | Self::SslFree
            | Self::WindowLeave
            | Self::WindowClose => AttachRank::Releases,
            Self::Realloc
            | Self::ReallocArray
            | Self::ResizeInPlace
            | Self::RustRealloc
            | Self::PythonRealloc
            | Self::SslWrite
            | Self::SslWriteEx => AttachRank::Moves,
            Self::Malloc
            | Self::Calloc
            | Self::AlignedAlloc
            | Self::PosixMemalign
            | Self::NoteCaller
            | Self::PythonMalloc
            | Self::PythonCalloc
            | Self::PythonContextMade
            | Self::PythonItemPut
            | Self::PythonNewPool
            | Self::SslRead
            | Self::SslReadEx
            | Self::WindowFunction
            | Self::WindowEnter
            | Self::WindowOpen => AttachRank::Takes,
        }
    }

    /// Whether a probe must see the function's return, too.
    #[must_use]
    pub const fn has_return(self) -> bool {
        !matches!(
            self,
            Self::Free
                | Self::NoteCaller
                | Self::PythonCodeFreed
                | Self::PythonContextFreed
                | Self::PythonItemPut
                | Self::PythonItemReturned
                | Self::PythonFree
                | Self::SslFree
                | Self::WindowEnter
                | Self::WindowLeave
                | Self::WindowOpen
                | Self::WindowClose
        )
    }

    /// How many leading integer arguments the entry program reads. A probe site behind the first
    /// instruction must have left these registers as they were at entry.
    #[must_use]
    pub const fn arguments(self) -> usize {
        match self {
            Self::Malloc
            | Self::Free
            | Self::PythonCodeFreed
            | Self::PythonContextFreed
            | Self::SslFree => 1,
            Self::Calloc
            | Self::Realloc
            | Self::AlignedAlloc
            | Self::ResizeInPlace
            | Self::PythonMalloc
            | Self::PythonFree
            | Self::PythonItemPut
            | Self::SslRead
            | Self::SslWrite => 2,
            Self::ReallocArray | Self::PosixMemalign | Self::PythonCalloc | Self::PythonRealloc => {
                3
            }
            Self::RustRealloc | Self::SslReadEx | Self::SslWriteEx => 4,
            Self::NoteCaller
            | Self::PythonContextMade
            | Self::PythonItemTaken
            | Self::PythonItemReturned
            | Self::PythonNewPool
            | Self::WindowFunction
            | Self::WindowEnter
            | Self::WindowLeave
            | Self::WindowOpen
            | Self::WindowClose => 0,
        }
    }
}

/// The attach cookie: the function and the process of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// The process slot, an index into the `PROCESSES` map.
    pub process: u16,
    /// The function, an index into the `FUNCTIONS` map.
    pub function: u32,
}

impl Cookie {
    /// The cookie as the kernel carries it.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        ((self.function as u64) << 16) | self.process as u64
    }

    /// Reads a cookie that the kernel has carried.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self {
            process: bits as u16,
            function: (bits >> 16) as u32,
        }
    }
}
