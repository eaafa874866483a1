//! Finds the modules that a file names, by resolving its paths.
//!
//! A path that leaves its room begins with `crate` or `super`, wherever it stands: in a `use`, in
//! an expression, in an attribute or in the tokens of a macro. This is why the code reads tokens: a
//! syntax tree would keep the arguments of macros unread. A program whose package has a library
//! beside the program names the library's modules by the library's name, which stands for `crate`
//! here.

use proc_macro2::{Delimiter, Group, Ident, TokenStream, TokenTree};

use super::source::Source;

/// A path that a file names, from the root of its crate: the first segments of the path, without
/// `crate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The line of the path, counted from 1.
    pub line: usize,
    /// The segments, such as `["heap", "Ranges"]` of `crate::heap::Ranges`.
    pub path: Vec<String>,
}

/// What the production code of one file names, and which of the file's modules are tests.
#[derive(Debug, Default)]
pub struct Imports {
    /// Every path that begins at the root of the crate, or leads there.
    pub named: Vec<Named>,
    /// The modules in files of their own that only tests compile, from the root of the crate.
    pub tests: Vec<Vec<String>>,
    /// The types to which the file gives methods that the whole crate sees.
    pub methods: Vec<Methods>,
    /// The name of the library beside the program; empty if there is none.
    library: &'static str,
}

/// An `impl` block, without a trait, that has a method which is `pub` without restriction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Methods {
    /// The line of the `impl`, counted from 1.
    pub line: usize,
    /// The name of the type, without its path.
    pub of: String,
}

/// Reads a file whose module is `module`, counted from the root of its crate. `library` is the name
/// by which the file names the library beside the file's program, or empty.
///
/// # Errors
///
/// Fails when the file does not consist of Rust's tokens.
pub fn read(
    source: &Source,
    module: &[String],
    library: &'static str,
) -> Result<Imports, proc_macro2::LexError> {
    let tokens: TokenStream = source.text().parse()?;
    let mut imports = Imports {
        library,
        ..Imports::default()
    };
    imports.walk(tokens, module);
    Ok(imports)
}

/// Returns the module that a file holds, from the root of its crate: `["heap", "ranges"]` of
/// `heap/ranges.rs`.
pub fn module_of(file: &str) -> Vec<String> {
    let path = file.strip_suffix(".rs").unwrap_or(file);
    let path = path.strip_suffix("/mod").unwrap_or(path);
    match path {
        "lib" | "main" => Vec::new(),
        _ => path.split('/').map(str::to_owned).collect(),
    }
}

impl Imports {
    fn walk(&mut self, tokens: TokenStream, module: &[String]) {
        let mut rest: &[TokenTree] = &tokens.into_iter().collect::<Vec<_>>();
        while let Some(token) = rest.first() {
            if is_test_attribute(rest) {
                rest = self.skip_test(&rest[2..], module);
                continue;
            }
            if let Some((from, length)) = root_of_path(rest, module, self.library) {
                let tree = &rest[length..];
                self.add_tree(tree, &from, token.span().start().line);
                // The groups of the tree hold no further roots.
                rest = after_tree(tree);
                continue;
            }
            if let Some((name, body)) = inline_module(rest) {
                self.walk(body.stream(), &child(module, &name.to_string()));
                rest = &rest[3..];
                continue;
            }
            self.methods.extend(open_methods(rest));
            if let TokenTree::Group(group) = token {
                self.walk(group.stream(), module);
            }
            rest = &rest[1..];
        }
    }

    /// Skips the item after `#[cfg(test)]`. The item's other attributes and its visibility come
    /// first.
    fn skip_test<'a>(&mut self, tokens: &'a [TokenTree], module: &[String]) -> &'a [TokenTree] {
        for (at, token) in tokens.iter().enumerate() {
            let rest = &tokens[at + 1..];
            match token {
                TokenTree::Ident(word) if word == "mod" => {
                    if let [TokenTree::Ident(name), TokenTree::Punct(end), ..] = rest
                        && end.as_char() == ';'
                    {
                        self.tests.push(child(module, &name.to_string()));
                    }
                }
                TokenTree::Punct(end) if end.as_char() == ';' => return rest,
                TokenTree::Group(body) if body.delimiter() == Delimiter::Brace => return rest,
                _ => {}
            }
        }
        &[]
    }

    /// Adds the paths of `a::b`, `a::{b, c::d}` or `{a, b}` behind a root.
    fn add_tree(&mut self, tree: &[TokenTree], from: &[String], line: usize) {
        match tree {
            [TokenTree::Ident(name), rest @ ..] => {
                let path = child(from, &name.to_string());
                let line = name.span().start().line;
                match after_colons(rest) {
                    Some(rest) => self.add_tree(rest, &path, line),
                    None => self.named.push(Named { line, path }),
                }
            }
            [TokenTree::Group(group), ..] if group.delimiter() == Delimiter::Brace => {
                let tokens: Vec<_> = group.stream().into_iter().collect();
                for part in tokens
                    .split(|token| is_punct(token, ','))
                    .filter(|part| !part.is_empty())
                {
                    self.add_tree(part, from, line);
                }
            }
            // The tree is `*`, or nothing.
            _ => self.named.push(Named {
                line,
                path: from.to_vec(),
            }),
        }
    }
}

/// The name and the body of `mod name { … }`, if the tokens begin with such a module.
fn inline_module(tokens: &[TokenTree]) -> Option<(&Ident, &Group)> {
    match tokens {
        [
            TokenTree::Ident(word),
            TokenTree::Ident(name),
            TokenTree::Group(body),
            ..,
        ] if word == "mod" && body.delimiter() == Delimiter::Brace => Some((name, body)),
        _ => None,
    }
}

/// Finds the methods that the whole crate sees, if the tokens begin with `impl` and a type.
fn open_methods(tokens: &[TokenTree]) -> Option<Methods> {
    let (first, rest) = tokens.split_first()?;
    if !is_word(first, "impl") {
        return None;
    }
    let (mut of, mut depth, mut is_named) = (None, 0, false);
    for token in rest {
        match token {
            TokenTree::Group(body) if body.delimiter() == Delimiter::Brace => {
                let line = first.span().start().line;
                return has_open_method(body).then_some(Methods { line, of: of? });
            }
            // The block is of a trait.
            TokenTree::Ident(word) if word == "for" => return None,
            TokenTree::Ident(word) if word == "where" => is_named = true,
            TokenTree::Ident(name) if depth == 0 && !is_named => of = Some(name.to_string()),
            TokenTree::Punct(punct) => match punct.as_char() {
                '<' => depth += 1,
                '>' => depth -= 1,
                // The `impl` stands in the place of a type.
                ';' | '=' => return None,
                _ => {}
            },
            _ => {}
        }
    }
    None
}

/// Whether a body has an item that is `pub`, and not `pub(…)`.
fn has_open_method(body: &Group) -> bool {
    let items: Vec<_> = body.stream().into_iter().collect();
    items
        .windows(2)
        .any(|pair| is_word(&pair[0], "pub") && !matches!(pair[1], TokenTree::Group(_)))
}

fn is_word(token: &TokenTree, word: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == word)
}

/// Finds the module that a path begins at, and the number of tokens that say so: `crate::`, the
/// library's name, `self::super::` or `super::super::`.
fn root_of_path(
    tokens: &[TokenTree],
    module: &[String],
    library: &str,
) -> Option<(Vec<String>, usize)> {
    let mut from = module.to_vec();
    let mut rest = tokens;
    let mut is_path = false;
    while let Some(TokenTree::Ident(word)) = rest.first() {
        match word.to_string().as_str() {
            root if !is_path && (root == "crate" || root == library) => from.clear(),
            "super" => _ = from.pop(),
            "self" if !is_path => {}
            _ => break,
        }
        let Some(after) = after_colons(&rest[1..]) else {
            break;
        };
        rest = after;
        is_path = true;
    }
    is_path.then(|| (from, tokens.len() - rest.len()))
}

/// Returns what stands behind the path or the tree of paths at the beginning.
fn after_tree(mut tree: &[TokenTree]) -> &[TokenTree] {
    loop {
        match tree {
            [TokenTree::Ident(_), rest @ ..] => match after_colons(rest) {
                Some(after) => tree = after,
                None => return rest,
            },
            [TokenTree::Group(group), rest @ ..] if group.delimiter() == Delimiter::Brace => {
                return rest;
            }
            _ => return tree,
        }
    }
}

fn after_colons(tokens: &[TokenTree]) -> Option<&[TokenTree]> {
    match tokens {
        [first, second, rest @ ..] if is_punct(first, ':') && is_punct(second, ':') => Some(rest),
        _ => None,
    }
}

fn is_punct(token: &TokenTree, c: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == c)
}

fn is_test_attribute(tokens: &[TokenTree]) -> bool {
    let [hash, TokenTree::Group(attribute), ..] = tokens else {
        return false;
    };
    is_punct(hash, '#') && attribute.stream().to_string().replace(' ', "") == "cfg(test)"
}

fn child(module: &[String], name: &str) -> Vec<String> {
    let mut path = module.to_vec();
    path.push(name.to_owned());
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(module: &str, text: &str) -> Vec<(usize, String)> {
        let source = Source::new("a.rs", text);
        let imports = read(&source, &module_of(module), "beside").expect("tokens of Rust");
        let named = imports.named.into_iter();
        named
            .map(|path| (path.line, path.path.join("::")))
            .collect()
    }

    fn paths(module: &str, text: &str) -> Vec<String> {
        let named = named(module, text).into_iter();
        named.map(|(_, path)| path).collect()
    }

    #[test]
    fn a_tree_of_imports_is_taken_apart() {
        let text = "use crate::{\n    heap::{Ranges, suspects::*},\n    drain::Drain as D,\n};\n";
        assert_eq!(
            named("session.rs", text),
            [
                (2, "heap::Ranges".to_owned()),
                (2, "heap::suspects".to_owned()),
                (3, "drain::Drain".to_owned()),
            ]
        );
    }

    #[test]
    fn super_leads_out_of_a_room() {
        assert_eq!(
            paths("heap/ranges.rs", "use super::super::report::X;"),
            ["report::X"]
        );
        assert_eq!(paths("heap/mod.rs", "use super::report::X;"), ["report::X"]);
        assert_eq!(
            paths("heap/ranges.rs", "use super::Totals;"),
            ["heap::Totals"]
        );
        assert_eq!(
            paths("heap.rs", "mod inner { use super::super::report; }"),
            ["report"]
        );
    }

    #[test]
    fn paths_in_code_attributes_and_macros_count() {
        let text = "#[arg(value_parser = crate::cost::parse)]\nfn a() { b(crate::heap::C, format!(\"{}\", \
                    crate::report::d())) }";
        assert_eq!(
            paths("cli.rs", text),
            ["cost::parse", "heap::C", "report::d"]
        );
    }

    #[test]
    fn the_library_beside_a_program_counts_as_the_crate() {
        let text = "use beside::abi::{heap::A, B};\nfn a() { beside::abi::c(); other::d(); }";
        assert_eq!(paths("live.rs", text), ["abi::heap::A", "abi::B", "abi::c"]);
    }

    #[test]
    fn methods_that_the_whole_crate_sees_are_found() {
        let methods = |text| {
            let imports = read(&Source::new("a.rs", text), &[], "");
            let methods = imports.expect("tokens of Rust").methods.into_iter();
            methods.map(|found| found.of).collect::<Vec<_>>()
        };
        let open = "impl A { fn a() {} }\nimpl<T: B> m::C<'_, T> where T: D { #[inline]\n pub const fn c() {} }";
        assert_eq!(methods(open), ["C"]);
        let closed = "impl A { pub(super) fn a() {} }\nimpl B for A { fn b() {} }\n\
                      fn c(d: impl Fn(), e: E) -> impl F { struct G { pub h: u8 } }";
        assert_eq!(methods(closed), [""; 0]);
    }

    #[test]
    fn tests_prose_and_visibility_do_not_count() {
        let text = "//! As `crate::a::B`.\n#[cfg(test)]\nmod tests { use crate::c::D; }\n#[cfg(test)]\n\
                    pub(crate) mod hostile;\npub(super) fn e() { \"crate::f\"; }\n";
        assert_eq!(paths("heap/mod.rs", text), Vec::<String>::new());
        let imports = read(&Source::new("a.rs", text), &module_of("heap/mod.rs"), "");
        assert_eq!(
            imports.expect("tokens of Rust").tests,
            [["heap", "hostile"]]
        );
    }
}
