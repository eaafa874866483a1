//! Plans the probes on functions that read and write through TLS: those of OpenSSL, which BoringSSL, LibreSSL and
//! others have under the same names. The functions may be in a library, or be linked into the object that calls
//! them.

use residue_ebpf::abi::call_shape::CallShape;

use super::{SourceObject, WindowProbe, in_order};
use crate::probes::{FunctionSymbol, ProbeSite, SitePolicy};

/// The functions by their names (openssl/ssl.h).
const FUNCTIONS: [(&str, CallShape); 6] = [
    ("SSL_read", CallShape::SslRead),
    ("SSL_read_ex", CallShape::SslReadEx),
    ("SSL_write", CallShape::SslWrite),
    ("SSL_write_ex", CallShape::SslWriteEx),
    ("SSL_free", CallShape::SslFree),
    ("SSL_shutdown", CallShape::SslFree),
];

/// The file names of other libraries for TLS, and the names of these libraries.
const NOT_FOLLOWED: [(&str, &str); 6] = [
    ("libgnutls.so", "GnuTLS"),
    ("libmbedtls.so", "Mbed TLS"),
    ("libwolfssl.so", "wolfSSL"),
    ("libnss3.so", "NSS"),
    ("libs2n.so", "s2n-tls"),
    ("librustls.so", "rustls"),
];

/// The call shape of the TLS function with this symbol, if there is one.
pub(super) fn shape(symbol: &str) -> Option<CallShape> {
    let known = FUNCTIONS.iter().find(|(name, _)| *name == symbol)?;
    Some(known.1)
}

/// The TLS functions of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsPlan {
    /// The probes, in the order in which to attach them.
    pub probes: Vec<WindowProbe>,
    /// The indices of the objects with these probes.
    pub libraries: Vec<usize>,
    /// What residue will not see, in one sentence each.
    pub not_followed: Vec<String>,
}

/// Plans the probes for a process, in every object that brings these functions: a process that has loaded a
/// library twice may use both.
#[must_use]
pub fn plan(objects: &[SourceObject], policy: SitePolicy) -> TlsPlan {
    let mut plan = TlsPlan::default();
    for (index, object) in objects.iter().enumerate() {
        plan.not_followed.extend(not_followed(object));
        let before = plan.probes.len();
        for function in &object.functions {
            match probe(index, object, function, policy) {
                Some(Ok(probe)) => plan.probes.push(probe),
                Some(Err(reason)) => plan.not_followed.push(format!(
                    "{} in {} is not probed: {reason}",
                    function.name,
                    object.name()
                )),
                None => {}
            }
        }
        if plan.probes.len() > before {
            plan.libraries.push(index);
        }
    }
    in_order(&mut plan.probes);
    plan
}

fn probe(
    index: usize,
    object: &SourceObject,
    function: &FunctionSymbol,
    policy: SitePolicy,
) -> Option<Result<WindowProbe, &'static str>> {
    let shape = shape(&function.name)?;
    let place = || {
        if object.is_go {
            return Err("Go made the object that it is in");
        }
        if function.indirect {
            return Err("it is chosen at run time (IFUNC)");
        }
        let start = function.file_offset.ok_or("it is in no text segment")?;
        let place = (function.address, start);
        let site = ProbeSite::choose(&function.name, place, &function.code, shape, policy)?;
        Ok(WindowProbe {
            shape,
            object: index,
            file: object.file,
            site,
        })
    };
    Some(place())
}

fn not_followed(object: &SourceObject) -> Option<String> {
    let name = object.name();
    let mut known = NOT_FOLLOWED.iter();
    let library = known.find(|(file, _)| name.starts_with(file));
    let library = library.map(|(_, library)| *library);
    let library = library.or(object.has_rustls.then_some("rustls"))?;
    Some(format!(
        "{name} brings {library}: requests that come through it are not followed"
    ))
}
