//! A window is the time between two static probes (USDT).

use std::{fmt, path::PathBuf};

use residue_ebpf::abi::call_shape::CallShape;

use super::{SourceObject, SourceSyntax, WindowProbe, listed};
use crate::probes::{ProbeSite, StaticProbe};

/// Two probes of one provider.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProbePair {
    /// Whose probes they are.
    pub provider: String,
    /// The one that opens a window.
    pub open: String,
    /// The one that closes it.
    pub close: String,
}

impl ProbePair {
    /// `PROVIDER:OPEN:CLOSE`.
    pub(super) fn parse(text: &str) -> Result<Self, SourceSyntax> {
        let parts: Vec<_> = text.split(':').collect();
        let (&[provider, open, close], true) = (&parts[..], parts.iter().all(|it| !it.is_empty()))
        else {
            return Err(SourceSyntax::NotThree(text.to_owned()));
        };
        if open == close {
            return Err(SourceSyntax::Same(open.to_owned()));
        }
        Ok(Self {
            provider: provider.to_owned(),
            open: open.to_owned(),
            close: close.to_owned(),
        })
    }
}

impl fmt::Display for ProbePair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            provider,
            open,
            close,
        } = self;
        write!(f, "{provider}:{open}:{close}")
    }
}

/// Why a pair of static probes makes no windows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsdtError {
    /// No object has probes of that provider.
    #[error(
        "the process has no static probes of {provider}: {}",
        match &providers[..] {
            "" => "none of its objects has any; build it with those of sys/sdt.h".to_owned(),
            providers => format!("there are those of {providers}"),
        }
    )]
    NoProvider {
        /// As asked for.
        provider: String,
        /// Those that there are; may be empty.
        providers: String,
    },
    /// The provider has no such probe.
    #[error("{provider} has no static probe {name}: it has {names}")]
    NoProbe {
        /// As asked for.
        provider: String,
        /// As asked for.
        name: String,
        /// Those that there are.
        names: String,
    },
    /// The program skips the probe until a counter is raised.
    #[error(
        "the static probe {provider}:{name} in {object} has a semaphore, which residue does not raise, \
         so it would never be passed: build it without (leave out _SDT_HAS_SEMAPHORES, or `dtrace -h`), \
         or give fn:SYMBOL"
    )]
    Semaphore {
        /// As asked for.
        provider: String,
        /// As asked for.
        name: String,
        /// Where.
        object: PathBuf,
    },
    /// The place that the note gives is none for a probe.
    #[error(
        "the static probe {provider}:{name} in {object} is at no nop: a tool that has changed the file \
         has broken its notes; give fn:SYMBOL"
    )]
    NotNop {
        /// As asked for.
        provider: String,
        /// As asked for.
        name: String,
        /// Where.
        object: PathBuf,
    },
}

/// Every place of both probes, in whichever object.
pub(super) fn plan(
    pair: &ProbePair,
    objects: &[SourceObject],
) -> Result<Vec<WindowProbe>, UsdtError> {
    let mut probes = of_name(pair, &pair.open, CallShape::WindowOpen, objects)?;
    probes.extend(of_name(pair, &pair.close, CallShape::WindowClose, objects)?);
    Ok(probes)
}

fn of_name(
    pair: &ProbePair,
    name: &str,
    shape: CallShape,
    objects: &[SourceObject],
) -> Result<Vec<WindowProbe>, UsdtError> {
    let all = || {
        let objects = objects.iter().enumerate();
        objects.flat_map(|(index, object)| object.probes.iter().map(move |it| (index, object, it)))
    };
    let of_provider = || all().filter(|(_, _, it)| it.provider == pair.provider);
    let named = of_provider().filter(|(_, _, it)| it.name == name);
    let probes: Vec<_> = named
        .map(|(index, object, it)| place(index, object, it, shape))
        .collect::<Result<_, _>>()?;
    let provider = || pair.provider.clone();
    if !probes.is_empty() {
        return Ok(probes);
    }
    Err(if of_provider().next().is_none() {
        UsdtError::NoProvider {
            provider: provider(),
            providers: listed(all().map(|(_, _, it)| &it.provider[..])),
        }
    } else {
        UsdtError::NoProbe {
            provider: provider(),
            name: name.to_owned(),
            names: listed(of_provider().map(|(_, _, it)| &it.name[..])),
        }
    })
}

fn place(
    index: usize,
    object: &SourceObject,
    probe: &StaticProbe,
    shape: CallShape,
) -> Result<WindowProbe, UsdtError> {
    let StaticProbe {
        provider,
        name,
        address,
        file_offset,
        nop,
        semaphore,
    } = probe;
    let (provider, name, path) = (provider.clone(), name.clone(), object.path.clone());
    if semaphore.is_some() {
        return Err(UsdtError::Semaphore {
            provider,
            name,
            object: path,
        });
    }
    let (Some(at), Some(nop)) = (file_offset, nop) else {
        return Err(UsdtError::NotNop {
            provider,
            name,
            object: path,
        });
    };
    let symbol = format!("{provider}:{name}");
    Ok(WindowProbe {
        shape,
        object: index,
        file: object.file,
        site: ProbeSite::of(&symbol, 0, (*address, *at), nop, "the static probe"),
    })
}
