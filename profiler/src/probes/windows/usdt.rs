//! Plans the probes that make the time between two static probes (USDT) a window.

use std::{fmt, path::PathBuf};

use residue_ebpf::abi::call_shape::CallShape;

use super::{SourceObject, SourceSyntax, WindowProbe, listed};
use crate::probes::{ProbeSite, StaticProbe};

/// Two probes of one provider.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProbePair {
    /// The provider of both probes.
    pub provider: String,
    /// The name of the probe that opens a window.
    pub open: String,
    /// The name of the probe that closes the window.
    pub close: String,
}

impl ProbePair {
    /// Parses `PROVIDER:OPEN:CLOSE`.
    pub(super) fn parse(text: &str) -> Result<Self, SourceSyntax> {
        let parts: Vec<_> = text.split(':').collect();
        let are_named = parts.iter().all(|part| !part.is_empty());
        let (&[provider, open, close], true) = (&parts[..], are_named) else {
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

/// Why a pair of static probes can make no windows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsdtError {
    /// No object has probes of the provider.
    #[error(
        "the process has no static probes of {provider}: {}",
        match &providers[..] {
            "" => "none of its objects has any; build it with those of sys/sdt.h".to_owned(),
            providers => format!("there are those of {providers}"),
        }
    )]
    NoProvider {
        /// The provider that the user gave.
        provider: String,
        /// The providers that the process has; may be empty.
        providers: String,
    },
    /// The provider has no probe of this name.
    #[error("{provider} has no static probe {name}: it has {names}")]
    NoProbe {
        /// The provider that the user gave.
        provider: String,
        /// The probe that the user gave.
        name: String,
        /// The probes that the provider has.
        names: String,
    },
    /// The program skips the probe until somebody raises a counter.
    #[error(
        "the static probe {provider}:{name} in {object} has a semaphore, which residue does not raise, \
         so it would never be passed: build it without (leave out _SDT_HAS_SEMAPHORES, or `dtrace -h`), \
         or give fn:SYMBOL"
    )]
    Semaphore {
        /// The provider that the user gave.
        provider: String,
        /// The probe that the user gave.
        name: String,
        /// The object that has the probe.
        object: PathBuf,
    },
    /// At the place that the note states there is no nop.
    #[error(
        "the static probe {provider}:{name} in {object} is at no nop: a tool that has changed the file \
         has broken its notes; give fn:SYMBOL"
    )]
    NotNop {
        /// The provider that the user gave.
        provider: String,
        /// The probe that the user gave.
        name: String,
        /// The object that has the probe.
        object: PathBuf,
    },
}

/// Plans a probe for every place of both static probes, in all objects.
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
    let mut probes = Vec::new();
    for (index, object) in objects.iter().enumerate() {
        for probe in &object.probes {
            if (&probe.provider, &probe.name[..]) == (&pair.provider, name) {
                probes.push(place(index, object, probe, shape)?);
            }
        }
    }
    if probes.is_empty() {
        return Err(none_named(pair, name, objects));
    }
    Ok(probes)
}

fn none_named(pair: &ProbePair, name: &str, objects: &[SourceObject]) -> UsdtError {
    let all = || objects.iter().flat_map(|object| &object.probes);
    let of_provider = || all().filter(|probe| probe.provider == pair.provider);
    let provider = pair.provider.clone();
    if of_provider().next().is_none() {
        let providers = listed(all().map(|probe| &probe.provider[..]));
        return UsdtError::NoProvider {
            provider,
            providers,
        };
    }
    UsdtError::NoProbe {
        provider,
        name: name.to_owned(),
        names: listed(of_provider().map(|probe| &probe.name[..])),
    }
}

fn place(
    index: usize,
    object: &SourceObject,
    probe: &StaticProbe,
    shape: CallShape,
) -> Result<WindowProbe, UsdtError> {
    let (provider, name) = (probe.provider.clone(), probe.name.clone());
    if probe.semaphore.is_some() {
        return Err(UsdtError::Semaphore {
            provider,
            name,
            object: object.path.clone(),
        });
    }
    let (Some(at), Some(nop)) = (probe.file_offset, &probe.nop) else {
        return Err(UsdtError::NotNop {
            provider,
            name,
            object: object.path.clone(),
        });
    };
    let (symbol, place) = (format!("{provider}:{name}"), (probe.address, at));
    Ok(WindowProbe {
        shape,
        object: index,
        file: object.file,
        site: ProbeSite::of(&symbol, 0, place, nop, "the static probe"),
    })
}
