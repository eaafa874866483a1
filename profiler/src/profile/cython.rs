//! Turns the names that Cython gives to functions back into the names that their authors wrote.

/// How the names that Cython makes begin.
const MANGLED: &str = "__pyx_";
/// What may stand before the function's own name, where Cython wraps a method or fills a slot of a
/// type.
const KINDS: [&str; 4] = ["tp_vectorcall", "pw", "pf", "f"];

/// Turns `__pyx_pw_3pkg_3mod_4Node_29matches` into `Node.matches`: the class and the function,
/// without the package, the module and the number that makes the name unique. None if Cython did
/// not make the name.
pub(super) fn plain(name: &str) -> Option<String> {
    let name = name.strip_prefix(MANGLED)?;
    let kind = |kind: &&str| name.strip_prefix(*kind)?.strip_prefix('_');
    let mut rest = KINDS.iter().find_map(kind)?;
    let mut scopes = Vec::new();
    while let Some((scope, behind)) = scope(rest) {
        scopes.push(scope);
        rest = behind;
    }
    let own = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    // The package and the module are one scope each. A package may lie inside another package.
    let class = scopes.get(2..).and_then(<[_]>::last);
    match (class, own) {
        _ if scopes.is_empty() || own.is_empty() => None,
        (Some(class), own) => Some(format!("{class}.{own}")),
        (None, own) => Some(own.to_owned()),
    }
}

/// Splits off one scope: a length, as many letters, and `_`. Returns the scope and what follows.
fn scope(text: &str) -> Option<(&str, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (length, text) = text.split_at(digits);
    let (scope, rest) = text.split_at_checked(length.parse().ok()?)?;
    Some((scope, rest.strip_prefix('_')?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_as_its_author_wrote_it() {
        for (mangled, name) in [
            (
                "__pyx_pw_10selectolax_6lexbor_10LexborNode_29css_matches",
                "LexborNode.css_matches",
            ),
            (
                "__pyx_tp_vectorcall_10selectolax_6lexbor_LexborHTMLParser",
                "LexborHTMLParser",
            ),
            (
                "__pyx_f_10selectolax_6lexbor_16LexborHTMLParser__parse_html",
                "LexborHTMLParser._parse_html",
            ),
            ("__pyx_pw_3pkg_3mod_1parse", "parse"),
        ] {
            assert_eq!(plain(mangled).as_deref(), Some(name));
        }
    }

    #[test]
    fn any_other_name_is_left_as_it_is() {
        let overflow = format!("__pyx_f_{}a_b", "9".repeat(40));
        for name in [
            "malloc",
            "__pyx_",
            "__pyx_f_",
            "__pyx_pymod_exec_lexbor",
            "__pyx_f_3pk",
            "__pyx_f_1\u{e4}_b",
            "__pyx_pw_3pkg_3mod_1",
            &overflow,
        ] {
            assert_eq!(plain(name), None, "{name}");
        }
    }
}
