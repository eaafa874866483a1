//! Plans the probes that open and close windows, other than those of plain sockets. Pure: facts about the objects
//! of a process go in, and probes come out.
//!
//! `object` picks from an object what the sources ask for. `function` makes each call of a function a window, and
//! `usdt` the time between two static probes. `tls` finds the functions that encrypt and decrypt the traffic of
//! sockets.

mod function;
mod object;
mod tls;
mod usdt;

use std::{fmt, str::FromStr};

use residue_ebpf::abi::call_shape::CallShape;

pub use function::FunctionError;
pub use object::SourceObject;
pub use tls::{TlsPlan, plan as plan_tls};
pub use usdt::{ProbePair, UsdtError};

use crate::{
    probes::{ProbeSite, SitePolicy},
    process::{FileKey, FileOffset},
};

/// A source of windows, as `--window` takes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum WindowSource {
    /// Each request of HTTP/1 is a window.
    Http,
    /// Each call of this function is a window. The text is a symbol, or the name in the source.
    Function(String),
    /// The time between two static probes is a window.
    Usdt(ProbePair),
}

/// Why a text is no [`WindowSource`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceSyntax {
    /// The text is none of the three kinds.
    #[error(
        "`{0}` makes no windows: give http, fn:SYMBOL (each call is a window), or \
         usdt:PROVIDER:OPEN:CLOSE (from one static probe to another)"
    )]
    Unknown(String),
    /// Nothing follows `fn:`.
    #[error(
        "fn: names no function: give fn:SYMBOL, for example fn:handle_job or fn:app::jobs::run"
    )]
    NoFunction,
    /// What follows `usdt:` does not have three parts.
    #[error(
        "`{0}` has to be a provider and two probes: give usdt:PROVIDER:OPEN:CLOSE, for example \
         usdt:app:job_start:job_done"
    )]
    NotThree(String),
    /// Both probes of the pair are the same.
    #[error(
        "usdt: the probe `{0}` cannot both open and close a window: give two probes, or fn:SYMBOL for \
         the function around them"
    )]
    Same(String),
}

impl FromStr for WindowSource {
    type Err = SourceSyntax;

    fn from_str(text: &str) -> Result<Self, SourceSyntax> {
        match text.split_once(':') {
            None if text == "http" => Ok(Self::Http),
            Some(("fn", "")) => Err(SourceSyntax::NoFunction),
            Some(("fn", name)) => Ok(Self::Function(name.to_owned())),
            Some(("usdt", parts)) => ProbePair::parse(parts).map(Self::Usdt),
            _ => Err(SourceSyntax::Unknown(text.to_owned())),
        }
    }
}

impl fmt::Display for WindowSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http => f.write_str("http"),
            Self::Function(name) => write!(f, "fn:{name}"),
            Self::Usdt(pair) => write!(f, "usdt:{pair}"),
        }
    }
}

/// A probe for windows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowProbe {
    /// What the kernel side does at the probe.
    pub shape: CallShape,
    /// The index of the probe's object among the objects of the process.
    pub object: usize,
    /// The file of the object.
    pub file: FileKey,
    /// Where the probe goes.
    pub site: ProbeSite,
}

impl WindowProbe {
    /// Identifies the probe, even after the process loads more libraries. Whoever plans again then attaches the
    /// probes with a new key.
    #[must_use]
    pub fn key(&self) -> (FileKey, FileOffset, CallShape) {
        (self.file, self.site.file_offset, self.shape)
    }
}

/// Why a process has no place for the windows that the user asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The source is a function.
    #[error(transparent)]
    Function(#[from] FunctionError),
    /// The source is a pair of static probes.
    #[error(transparent)]
    Usdt(#[from] UsdtError),
}

impl WindowSource {
    /// Plans the probes for this source in a process, in the order in which to attach them. `objects` are in the
    /// order in which the dynamic linker searches them. HTTP needs no probes in the process.
    ///
    /// # Errors
    /// When the process has no such place, or none that residue can probe without harm.
    pub fn plan(
        &self,
        objects: &[SourceObject],
        policy: SitePolicy,
    ) -> Result<Vec<WindowProbe>, SourceError> {
        let mut probes = match self {
            Self::Http => Vec::new(),
            Self::Function(name) => function::plan(name, objects, policy)?,
            Self::Usdt(pair) => usdt::plan(pair, objects)?,
        };
        in_order(&mut probes);
        Ok(probes)
    }
}

/// Puts probes that close windows before those that open them, and keeps one probe of each place.
fn in_order(probes: &mut Vec<WindowProbe>) {
    probes.sort_by_key(|probe| (probe.shape.attach_rank(), probe.key()));
    probes.dedup_by_key(|probe| probe.key());
}

/// Lists a few of these names for a message.
fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const MOST: usize = 8;
    let mut names: Vec<_> = names.into_iter().collect();
    names.sort_unstable();
    names.dedup();
    let more = names.len().saturating_sub(MOST);
    names.truncate(MOST);
    let list = names.join(", ");
    if more == 0 {
        list
    } else {
        format!("{list} and {more} more")
    }
}

#[cfg(test)]
mod tests;
