//! Reads the symbols that tell about an interpreter in an object.

use object::{Object as _, ObjectSymbol as _, ReadRef};

use super::{
    ContextSymbols,
    evaluation::{self, EvalPart},
};
use crate::process::Svma;

/// The symbols of an interpreter, with their SVMAs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PythonSymbols {
    /// `_PyRuntime`
    pub runtime: Svma,
    /// `PyCode_Type`
    pub code_type: Svma,
    /// `Py_Version`, from 3.11.
    pub version: Option<Svma>,
    /// Whether the file has no symbols but those that it exports.
    pub stripped: bool,
    /// The code that runs bytecode.
    pub eval: Vec<EvalPart>,
    /// The symbols that concern contexts, if the file exports them.
    pub contexts: Option<ContextSymbols>,
}

impl PythonSymbols {
    /// Reads the symbols of an ELF file; `None` if the file has no interpreter.
    pub fn read<'data>(data: impl ReadRef<'data>) -> Option<Self> {
        let file = object::File::parse(data).ok()?;
        let exported = |wanted: &str| {
            let mut symbols = file.dynamic_symbols();
            let found =
                symbols.find(|symbol| symbol.is_definition() && symbol.name() == Ok(wanted));
            found.map(|symbol| Svma(symbol.address()))
        };
        let runtime = exported("_PyRuntime")?;
        let stripped = file.symbol_table().is_none();
        Some(Self {
            runtime,
            code_type: exported("PyCode_Type")?,
            version: exported("Py_Version"),
            stripped,
            contexts: ContextSymbols::read(&file),
            eval: if stripped {
                evaluation::decoded(data, &file)
            } else {
                evaluation::named(file.symbols().chain(file.dynamic_symbols()))
            },
        })
    }
}
