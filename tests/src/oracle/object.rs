//! What framehop needs of an object, and the names of its functions.

use std::{ops::Range, sync::Arc};

use anyhow::{Context as _, Result};
use framehop::ExplicitModuleSectionInfo;
use object::{
    Object as _, ObjectSection as _, ObjectSegment as _, ObjectSymbol as _, ReadRef, SegmentFlags,
    SymbolKind, elf::PF_X,
};

use super::walk::Bytes;

/// One ELF file, read as far as it is needed.
#[derive(Debug)]
pub struct ObjectFile {
    /// The file's own name.
    pub name: String,
    /// Those that are executable: with some linkers a page of the file is in two segments.
    code: Vec<Segment>,
    sections: ExplicitModuleSectionInfo<Bytes>,
    /// Sorted by address.
    functions: Vec<Function>,
}

/// What is mapped from where to where.
#[derive(Debug)]
struct Segment {
    file: Range<u64>,
    svma: u64,
}

#[derive(Debug)]
struct Function {
    svma: Range<u64>,
    name: Box<str>,
}

impl ObjectFile {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// When it is no ELF file.
    pub fn read<'data>(name: String, data: impl ReadRef<'data>) -> Result<Self> {
        let file = object::File::parse(data).with_context(|| format!("{name} is no ELF file"))?;
        Ok(Self {
            name,
            code: executable_segments(&file),
            sections: sections(&file),
            functions: functions(&file),
        })
    }

    /// What to add to an SVMA for the AVMA, where the file is mapped from `offset` on at `avma`.
    #[must_use]
    pub fn bias(&self, avma: u64, offset: u64) -> Option<u64> {
        // A mapping begins with a whole page, and the segment where it likes in it.
        const PAGE: u64 = 4096;
        let segment = self.code.iter().find(|segment| {
            (segment.file.start & !(PAGE - 1)..segment.file.end).contains(&offset)
        })?;
        let svma = segment
            .svma
            .wrapping_add(offset)
            .wrapping_sub(segment.file.start);
        Some(avma.wrapping_sub(svma))
    }

    /// The function at an SVMA, if a symbol says so.
    #[must_use]
    pub fn function(&self, svma: u64) -> Option<&str> {
        let behind = self.functions.partition_point(|it| it.svma.start <= svma);
        let function = self.functions.get(behind.checked_sub(1)?)?;
        function.svma.contains(&svma).then_some(&*function.name)
    }

    /// The same bytes for each of its mappings.
    #[must_use]
    pub fn unwind_sections(&self) -> ExplicitModuleSectionInfo<Bytes> {
        self.sections.clone()
    }
}

fn executable_segments<'data>(file: &object::File<'data, impl ReadRef<'data>>) -> Vec<Segment> {
    let is_executable =
        |flags| matches!(flags, SegmentFlags::Elf { p_flags } if p_flags & PF_X != 0);
    file.segments()
        .filter(|segment| is_executable(segment.flags()))
        .map(|segment| {
            let (offset, length) = segment.file_range();
            Segment {
                file: offset..offset.saturating_add(length),
                svma: segment.address(),
            }
        })
        .collect()
}

fn sections<'data>(
    file: &object::File<'data, impl ReadRef<'data>>,
) -> ExplicitModuleSectionInfo<Bytes> {
    let section = |name| file.section_by_name(name);
    let svma = |name| {
        let section = section(name)?;
        Some(section.address()..section.address().saturating_add(section.size()))
    };
    let data = |name| -> Option<Bytes> {
        let data = section(name)?.uncompressed_data().ok()?;
        // A file of debug information alone has the sections without their contents.
        (!data.is_empty()).then(|| Arc::from(&*data))
    };
    ExplicitModuleSectionInfo {
        base_svma: 0,
        text_svma: svma(".text"),
        got_svma: svma(".got"),
        eh_frame_svma: svma(".eh_frame"),
        eh_frame: data(".eh_frame"),
        eh_frame_hdr_svma: svma(".eh_frame_hdr"),
        eh_frame_hdr: data(".eh_frame_hdr"),
        debug_frame: data(".debug_frame"),
        ..ExplicitModuleSectionInfo::default()
    }
}

fn functions<'data>(file: &object::File<'data, impl ReadRef<'data>>) -> Vec<Function> {
    let mut functions: Vec<Function> = file
        .symbols()
        .chain(file.dynamic_symbols())
        .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() != 0)
        .filter_map(|symbol| {
            let start = symbol.address();
            Some(Function {
                svma: start..start.saturating_add(symbol.size()),
                name: symbol.name().ok()?.into(),
            })
        })
        .collect();
    functions.sort_by_key(|function| function.svma.start);
    functions
}

#[cfg(test)]
mod tests {
    use object::ReadCache;

    use super::*;

    fn own() -> Result<ObjectFile> {
        let program = std::fs::File::open("/proc/self/exe")?;
        ObjectFile::read("tests".to_owned(), &ReadCache::new(program))
    }

    #[test]
    fn the_running_program_has_unwind_sections_and_functions() -> Result<()> {
        let own = own()?;
        let sections = own.unwind_sections();
        assert!(sections.eh_frame.is_some() && sections.eh_frame_hdr.is_some());
        let main = own.functions.iter().find(|it| &*it.name == "main");
        let main = main.context("main is a function")?;
        assert_eq!(own.function(main.svma.start), Some("main"));
        assert_ne!(own.function(main.svma.end), Some("main"));
        Ok(())
    }

    #[test]
    fn the_bias_is_the_same_for_every_mapping_of_a_file() -> Result<()> {
        let own = own()?;
        for segment in &own.code {
            let page = segment.file.start & !4095;
            let avma = 0x5555_0000_0000 + segment.svma - (segment.file.start - page);
            assert_eq!(own.bias(avma, page), Some(0x5555_0000_0000));
        }
        assert_eq!(own.bias(0, u64::MAX), None);
        Ok(())
    }

    #[test]
    fn a_text_file_is_no_object() {
        assert!(ObjectFile::read("notes".to_owned(), b"remember the milk".as_slice()).is_err());
    }
}
