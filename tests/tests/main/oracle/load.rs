//! Load on a server that listens on a socket file.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Result, bail};

const CLIENTS: u64 = 3;

/// Clients that go on until this is finished, or dropped.
pub struct Load {
    stopping: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    /// Each client calls `exchange` with the number of the round, again and again.
    pub fn start(exchange: impl Fn(u64) -> Result<()> + Send + Sync + 'static) -> Self {
        let stopping = Arc::new(AtomicBool::new(false));
        let exchange = Arc::new(exchange);
        let clients = (0..CLIENTS).map(|client| {
            let (stopping, exchange) = (Arc::clone(&stopping), Arc::clone(&exchange));
            thread::spawn(move || {
                let rounds = (client..).step_by(CLIENTS as usize);
                let mut until_stopped = rounds.take_while(|_| !stopping.load(Ordering::Relaxed));
                until_stopped.try_for_each(|round| exchange(round))
            })
        });
        Self {
            clients: clients.collect(),
            stopping,
        }
    }

    /// Ends it.
    ///
    /// # Errors
    ///
    /// When a client could not go on: then there was less load than was meant.
    pub fn finish(mut self) -> Result<()> {
        self.stopping.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            match client.join() {
                Ok(outcome) => outcome?,
                Err(_) => bail!("a client panicked"),
            }
        }
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}
