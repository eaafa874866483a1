//! The version of a CPython interpreter.

/// A version of CPython.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PythonVersion {
    /// The major version, 3.
    pub major: u8,
    /// The minor version. Residue knows 8 to 14.
    pub minor: u8,
    /// The patch release. A process before 3.11 does not tell.
    pub micro: Option<u8>,
}

impl std::fmt::Display for PythonVersion {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}.{}", self.major, self.minor)?;
        self.micro.map_or(Ok(()), |micro| write!(out, ".{micro}"))
    }
}

impl PythonVersion {
    /// The version for `PY_VERSION_HEX`: 0x030b02f0 is 3.11.2 final.
    #[must_use]
    pub const fn of_hex(hex: u32) -> Self {
        let [_, micro, minor, major] = hex.to_le_bytes();
        Self {
            major,
            minor,
            micro: Some(micro),
        }
    }

    /// The version in the name of a file, such as `libpython3.8.so.1.0` or `python3.9`.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let (_, version) = name.split_once("python")?;
        let mut numbers = version.split(|letter: char| !letter.is_ascii_digit());
        Some(Self {
            major: numbers.next()?.parse().ok()?,
            minor: numbers.next()?.parse().ok()?,
            micro: None,
        })
    }

    /// The major and the minor number, which determine the layout.
    #[must_use]
    pub const fn series(self) -> (u8, u8) {
        (self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_names_and_from_memory() {
        let name = |name| PythonVersion::of_name(name).map(PythonVersion::series);
        assert_eq!(PythonVersion::of_hex(0x030b_02f0).to_string(), "3.11.2");
        assert_eq!(name("libpython3.8.so.1.0"), Some((3, 8)));
        assert_eq!(name("python3.10"), Some((3, 10)));
        assert_eq!(name("libpython3.so"), None);
        assert_eq!(name("uwsgi"), None);
        let named = PythonVersion::of_name("python3.9").map(|version| version.to_string());
        assert_eq!(named.as_deref(), Some("3.9"));
    }
}
