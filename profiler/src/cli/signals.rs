//! The signals by which somebody asks a recording to end.

use std::{io, sync::mpsc, thread};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

/// How often residue was asked to end. A thread of its own listens, so that what takes long is asked too.
#[derive(Clone, Debug)]
pub struct Signals {
    seen: watch::Receiver<u32>,
}

impl Signals {
    /// From here on SIGINT, SIGTERM, SIGQUIT and SIGHUP end nothing by themselves.
    ///
    /// # Errors
    ///
    /// When there is no room for the thread, or the kernel refuses.
    pub fn listen() -> io::Result<Self> {
        let (sender, seen) = watch::channel(0);
        let (tell, told) = mpsc::channel();
        let thread = thread::Builder::new().name("signals".to_owned());
        thread.spawn(move || listen(&sender, &tell))?;
        told.recv().map_err(io::Error::other)??;
        Ok(Self { seen })
    }

    /// How often somebody has asked so far.
    pub fn count(&self) -> u32 {
        *self.seen.borrow()
    }

    /// Ready once somebody has asked more often than so many times.
    pub async fn more_than(&self, times: u32) {
        let mut seen = self.seen.clone();
        if seen.wait_for(|count| *count > times).await.is_err() {
            // Nobody listens any more, so nobody is heard.
            std::future::pending().await
        }
    }
}

fn listen(seen: &watch::Sender<u32>, tell: &mpsc::Sender<io::Result<()>>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let listening = runtime.and_then(|runtime| {
        let streams = runtime.block_on(async { streams() })?;
        Ok((runtime, streams))
    });
    // Who asked to listen waits for this.
    match listening {
        Err(error) => drop(tell.send(Err(error))),
        Ok((runtime, mut streams)) => {
            drop(tell.send(Ok(())));
            runtime.block_on(async {
                loop {
                    any(&mut streams).await;
                    seen.send_modify(|count| *count += 1);
                }
            });
        }
    }
}

fn streams() -> io::Result<Vec<Signal>> {
    let mut kinds = vec![
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::quit(),
    ];
    if !is_ignored(libc::SIGHUP) {
        kinds.push(SignalKind::hangup());
    }
    kinds.into_iter().map(signal).collect()
}

async fn any(streams: &mut [Signal]) {
    std::future::poll_fn(|context| {
        let mut ready = streams.iter_mut().map(|it| it.poll_recv(context));
        match ready.any(|it| it.is_ready()) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
}

/// Whether we were started so, as nohup does: a recording that was meant to outlive its terminal does.
fn is_ignored(signal: libc::c_int) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: asks for the present action, which the kernel writes to `action`.
    let asked = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: all zero is a valid action, and so is what the kernel wrote.
    asked == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}
