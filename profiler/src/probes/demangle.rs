//! Finds the name in the source code for a mangled symbol.

use std::fmt::{self, Write};

use cpp_demangle::{BorrowedSymbol, DemangleOptions};

/// The longest name to demangle, and the longest result, bytes. Nobody types a longer one, and a hostile
/// symbol can unfold without end.
const MAX_NAME_BYTES: usize = 4 << 10;

/// The name of a function in its source: the path of a Rust function without the hash, or a C++ function with
/// its parameters. Returns a symbol that is not mangled unchanged.
#[must_use]
pub fn readable(symbol: &str) -> String {
    rust(symbol)
        .or_else(|| cpp(symbol, DemangleOptions::new()))
        .unwrap_or_else(|| symbol.to_owned())
}

/// Whether a mangled symbol stands for the function that the source calls `name`. The name of a C++ function
/// may leave out the parameters.
#[must_use]
pub fn is_called(symbol: &str, name: &str) -> bool {
    let is_mangled = symbol.starts_with("_Z") || symbol.starts_with("_R");
    // A mangled symbol contains identifiers unchanged, so most symbols need no demangling.
    if !is_mangled || !symbol.contains(last_identifier(name)) {
        return false;
    }
    if let Some(path) = rust(symbol) {
        return path == name;
    }
    let plain = DemangleOptions::new().no_params().no_return_type();
    // A compiler appends `.cold` or `.part.0` to the symbol of code that is only a part of the function.
    let is_named = |options| {
        !symbol.contains('.') && cpp(symbol, options).is_some_and(|readable| readable == name)
    };
    is_named(plain) || is_named(DemangleOptions::new())
}

/// The last identifier of a path, as `run` of `jobs::Pool<T>::run(int)`.
#[must_use]
pub fn last_identifier(name: &str) -> &str {
    let mut depth = 0_i32;
    let (mut last, mut start) = ("", None);
    for (at, character) in name.char_indices().chain([(name.len(), ' ')]) {
        let is_part = character.is_alphanumeric() || character == '_';
        match (is_part && depth == 0, start) {
            (true, None) => start = Some(at),
            (false, Some(from)) => (last, start) = (&name[from..at], None),
            _ => {}
        }
        match character {
            '<' => depth += 1,
            '>' => depth -= 1,
            '(' if depth == 0 => break,
            _ => {}
        }
    }
    last
}

fn rust(symbol: &str) -> Option<String> {
    let is_rust = symbol.starts_with("_R") || is_legacy_rust(symbol);
    let demangled = rustc_demangle::try_demangle(symbol)
        .ok()
        .filter(|_| is_rust)?;
    let mut text = Bounded(String::new());
    write!(text, "{demangled:#}").ok()?;
    Some(text.0)
}

/// Whether a symbol has Rust's older mangling: that of C++, with a hash as the last part of the path (`_ZN…17h`,
/// 16 hexadecimal digits, `E`).
fn is_legacy_rust(symbol: &str) -> bool {
    symbol.starts_with("_ZN") && symbol.contains("17h")
}

fn cpp(symbol: &str, options: DemangleOptions) -> Option<String> {
    if !symbol.starts_with("_Z") || symbol.len() > MAX_NAME_BYTES {
        return None;
    }
    let parsed = BorrowedSymbol::new(symbol.as_bytes()).ok()?;
    let mut text = Bounded(String::new());
    parsed.structured_demangle(&mut text, &options).ok()?;
    Some(text.0)
}

/// Text that refuses to grow beyond [`MAX_NAME_BYTES`].
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > MAX_NAME_BYTES {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_functions_go_by_their_path() {
        let legacy = "_ZN6worker4jobs3run17h0123456789abcdefE";
        assert_eq!(readable(legacy), "worker::jobs::run");
        assert!(is_called(legacy, "worker::jobs::run"));
        assert!(!is_called(legacy, "jobs::run"));
        let v0 = "_RNvNtCs1234_6worker4jobs3run";
        assert!(is_called(v0, "worker::jobs::run"));
    }

    #[test]
    fn cpp_functions_go_by_their_path_with_and_without_parameters() {
        let symbol = "_ZN4Pool3runEi";
        assert_eq!(readable(symbol), "Pool::run(int)");
        assert!(is_called(symbol, "Pool::run") && is_called(symbol, "Pool::run(int)"));
        assert!(!is_called(symbol, "Pool::run(long)"));
        assert!(!is_called("_ZN4Pool3runEi.cold", "Pool::run"));
    }

    #[test]
    fn the_last_identifier_is_that_of_the_function() {
        assert_eq!(last_identifier("jobs::Pool<std::string>::run(int)"), "run");
        assert_eq!(last_identifier("<app::Job as app::Run>::run"), "run");
        assert_eq!(last_identifier("job"), "job");
        assert_eq!(last_identifier(""), "");
    }

    #[test]
    fn no_symbol_is_too_strange() {
        proptest::proptest!(|(symbol in "_(R|Z)[NnSstTIEA-Ka-j0-9_]{0,60}", name in ".{0,20}")| {
            let _ = (readable(&symbol), is_called(&symbol, &name));
        });
    }
}
