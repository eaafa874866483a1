//! What opens and closes windows beside plain sockets, and where the probes for it go. Pure: what is
//! known of the objects of a process goes in, probes come out.
//!
//! `object` picks from an object what the sources ask for. `function` makes each call of a function a
//! window, `usdt` the time between two static probes, and `tls` finds the functions that read and write
//! what sockets carry encrypted.

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
    target::{FileKey, FileOffset},
};

/// What makes a window, as `--window` takes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum WindowSource {
    /// A request of HTTP/1.
    Http,
    /// A call of this function: a symbol, or its name in the source.
    Function(String),
    /// The time between two static probes.
    Usdt(ProbePair),
}

/// Why a text is no [`WindowSource`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceSyntax {
    /// Neither of the three.
    #[error(
        "`{0}` makes no windows: give http, fn:SYMBOL (each call is a window), or \
         usdt:PROVIDER:OPEN:CLOSE (from one static probe to another)"
    )]
    Unknown(String),
    /// Nothing behind `fn:`.
    #[error(
        "fn: names no function: give fn:SYMBOL, for example fn:handle_job or fn:app::jobs::run"
    )]
    NoFunction,
    /// Not three parts.
    #[error(
        "`{0}` has to be a provider and two probes: give usdt:PROVIDER:OPEN:CLOSE, for example \
         usdt:app:job_start:job_done"
    )]
    NotThree(String),
    /// A pair of one.
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
    /// What happens there.
    pub shape: CallShape,
    /// Index of its object among those planned for.
    pub object: usize,
    /// The object's file.
    pub file: FileKey,
    /// Where it is.
    pub site: ProbeSite,
}

impl WindowProbe {
    /// What names the probe for good. After a library was loaded, plan again, and attach what has a key
    /// that is new.
    #[must_use]
    pub fn key(&self) -> (FileKey, FileOffset, CallShape) {
        (self.file, self.site.file_offset, self.shape)
    }
}

/// Why a process has nothing that makes the windows that were asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Of a function.
    #[error(transparent)]
    Function(#[from] FunctionError),
    /// Of static probes.
    #[error(transparent)]
    Usdt(#[from] UsdtError),
}

impl WindowSource {
    /// The probes for this source in a process, whose objects are given in search order: in the order in
    /// which to attach. None for HTTP, which needs no code of the process's own.
    ///
    /// # Errors
    /// When the process has no such place, or none that can be probed without harm.
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

/// What closes before what opens; each place once.
fn in_order(probes: &mut Vec<WindowProbe>) {
    probes.sort_by_key(|it| (it.shape.attach_rank(), it.key()));
    probes.dedup_by_key(|it| it.key());
}

/// A few names, for a message.
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
