//! Lines on standard output while something is recorded. A thread of its own writes them: a pipe that is full holds
//! up no recording, and what waits for its reader is bounded.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

/// How many lines wait for whoever reads. What comes on top is left out, and counted.
const WAITING: usize = 16 << 10;
/// How many bytes are written at a time, unless fewer wait.
const PIECE: usize = 64 << 10;
/// How long the end waits for whoever reads.
const PATIENCE: Duration = Duration::from_secs(1);

/// Lines that a thread writes.
pub struct Stream {
    /// None once nothing more comes.
    lines: Option<SyncSender<Vec<u8>>>,
    ended: Receiver<io::Result<()>>,
    /// That writing has failed was said.
    has_failed: bool,
    written: Arc<AtomicU64>,
    /// How many lines there were.
    all: u64,
}

impl Stream {
    /// Writes to `out`, until that fails.
    pub fn to(out: impl Write + Send + 'static) -> Self {
        let (lines, waiting) = sync_channel(WAITING);
        let (end, ended) = sync_channel(1);
        let written = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&written);
        let thread = thread::Builder::new().name("lines".to_owned());
        // Without room for a thread nobody takes lines, and all of them are left out.
        let _ = thread.spawn(move || {
            let result = write(&waiting, out, &count);
            // Whoever asks may have lost patience.
            let _ = end.send(result);
        });
        Self {
            lines: Some(lines),
            ended,
            has_failed: false,
            written,
            all: 0,
        }
    }

    /// Writes a line. Never waits: there may be no room for the line.
    pub fn write(&mut self, line: Vec<u8>) {
        self.all += 1;
        match self.lines.as_ref().map(|lines| lines.try_send(line)) {
            None | Some(Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) => {}
        }
    }

    /// Says, once, why nothing more can be written.
    ///
    /// # Errors
    ///
    /// When writing has failed.
    pub fn check(&mut self) -> io::Result<()> {
        let failure = self.ended.try_recv().map_or(Ok(()), |result| result);
        self.has_failed |= failure.is_err();
        failure
    }

    /// Waits until all is written, or for a second, if nobody reads. Returns how many lines were left out; none is
    /// said of a stream that has failed.
    ///
    /// # Errors
    ///
    /// When writing has failed, and nobody was told before.
    pub fn finish(&mut self) -> io::Result<u64> {
        self.lines = None;
        if self.has_failed {
            return Ok(0);
        }
        if let Ok(result) = self.ended.recv_timeout(PATIENCE) {
            result?;
        }
        Ok(self
            .all
            .saturating_sub(self.written.load(Ordering::Relaxed)))
    }
}

fn write(lines: &Receiver<Vec<u8>>, mut out: impl Write, written: &AtomicU64) -> io::Result<()> {
    while let Ok(mut piece) = lines.recv() {
        let mut count = 1;
        while piece.len() < PIECE
            && let Ok(line) = lines.try_recv()
        {
            piece.extend(line);
            count += 1;
        }
        out.write_all(&piece)?;
        out.flush()?;
        written.fetch_add(count, Ordering::Relaxed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, time::Instant};

    use super::*;

    fn line(number: usize) -> Vec<u8> {
        format!("{number:0>99}\n").into_bytes()
    }

    #[test]
    fn a_pipe_that_nobody_empties_holds_nothing_up() -> io::Result<()> {
        let (mut reader, writer) = io::pipe()?;
        let mut stream = Stream::to(writer);
        let began = Instant::now();
        (0..100_000).for_each(|it| stream.write(line(it)));
        assert!(began.elapsed() < Duration::from_secs(1), "it waited");
        // A pipe holds 64 KiB, and what is written in pieces counts once it is.
        assert!(stream.finish()? >= 100_000 - 656);
        assert!(began.elapsed() < Duration::from_secs(3));
        let mut first = vec![0; 100];
        reader.read_exact(&mut first)?;
        assert_eq!(first, line(0));
        Ok(())
    }

    #[test]
    fn whoever_reads_gets_all_of_it_in_order() -> io::Result<()> {
        let (mut reader, writer) = io::pipe()?;
        let mut stream = Stream::to(writer);
        let read = thread::spawn(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).map(|_| all)
        });
        (0..10_000).for_each(|it| stream.write(line(it)));
        assert_eq!(stream.finish()?, 0);
        let all = read.join().expect("it does not panic")?;
        assert_eq!(all, (0..10_000).flat_map(line).collect::<Vec<_>>());
        Ok(())
    }

    #[test]
    fn a_reader_that_has_gone_is_told_of() -> io::Result<()> {
        let (reader, writer) = io::pipe()?;
        drop(reader);
        let mut stream = Stream::to(writer);
        stream.write(line(0));
        let error = stream.finish().expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        Ok(())
    }

    #[test]
    fn that_nobody_reads_is_said_once_while_lines_come() -> io::Result<()> {
        let (reader, writer) = io::pipe()?;
        drop(reader);
        let mut stream = Stream::to(writer);
        stream.write(line(0));
        let began = Instant::now();
        let error = loop {
            assert!(began.elapsed() < Duration::from_secs(10));
            if let Err(error) = stream.check() {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        stream.write(line(1));
        stream.check()?;
        assert_eq!(stream.finish()?, 0);
        Ok(())
    }
}
