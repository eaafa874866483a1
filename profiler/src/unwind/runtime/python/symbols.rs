//! What the symbols of an object say about the interpreter in it.

use object::{Object as _, ObjectSymbol as _, ReadRef};

use super::{
    ContextSymbols,
    evaluation::{self, EvalPart},
};
use crate::target::Svma;

/// Addresses in the file's own terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PythonSymbols {
    /// `_PyRuntime`
    pub runtime: Svma,
    /// `PyCode_Type`
    pub code_type: Svma,
    /// `Py_Version`, from 3.11.
    pub version: Option<Svma>,
    /// Whether only what it exports has symbols.
    pub stripped: bool,
    /// The function that runs bytecode.
    pub eval: Vec<EvalPart>,
    /// What its contexts are found by, if it exports that.
    pub contexts: Option<ContextSymbols>,
}

impl PythonSymbols {
    /// Those of an ELF file; `None` if it holds no interpreter.
    pub fn read<'data>(data: impl ReadRef<'data>) -> Option<Self> {
        let file = object::File::parse(data).ok()?;
        let exported = |wanted: &str| {
            let mut symbols = file.dynamic_symbols();
            let found = symbols.find(|it| it.is_definition() && it.name() == Ok(wanted));
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
