//! Writes an error with its causes as one sentence.

use std::error::Error;

/// Writes the error and what caused it. Leaves out a cause that a message already holds: some of
/// residue's own messages hold their cause, and so do some of the libraries' messages.
#[must_use]
pub fn in_full(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Failed {
        #[error("failed to run it: {source}; check the command")]
        Told { source: io::Error },
        #[error("failed to run it")]
        Untold { source: io::Error },
    }

    #[test]
    fn what_the_operating_system_said_stands_once() {
        let source = || io::Error::from_raw_os_error(libc::ENOENT);
        let told = in_full(&Failed::Told { source: source() });
        let untold = in_full(&Failed::Untold { source: source() });
        for text in [told, untold] {
            assert_eq!(text.matches("No such file").count(), 1, "{text}");
        }
    }
}
