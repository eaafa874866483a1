//! Names that strangers could choose. Tests give them to every output.

/// Names of a kind that has broken some program.
pub(crate) const NAMES: &[&str] = &[
    // C0, DEL and C1: characters that drive a terminal, end a line, or are illegal in XML.
    "\0",
    "a\0b",
    "\u{1}\u{2}\u{3}",
    "bell\u{7}",
    "back\u{8}\u{8}\u{8}\u{8}space",
    "tab\tbed",
    "line\nbreak",
    "carriage\rreturn",
    "crlf\r\nforged: 1 block",
    "vertical\u{b}tab",
    "form\u{c}feed",
    "shift\u{e}out\u{f}",
    "\u{1a}end of file",
    "\u{1b}",
    "\u{1b}[2Jcleared",
    "\u{1b}[31mred\u{1b}[0m",
    "\u{1b}[1;31mLOST  0 forged\u{1b}[0m",
    "\u{1b}]0;title\u{7}",
    "\u{1b}]8;;http://example.com\u{1b}\\link\u{1b}]8;;\u{1b}\\",
    "\u{1b}]52;c;cm0gLXJm\u{7}",
    "\u{1b}[6n",
    "\u{1b}[?1049h",
    "\u{1b}P+q544e\u{1b}\\",
    "\u{1b}c",
    "\u{1b}(0",
    "\u{1c}\u{1d}\u{1e}\u{1f}",
    "del\u{7f}ete",
    "\u{80}\u{81}",
    "next\u{85}line",
    "c1\u{9b}2Jcsi",
    "c1\u{9d}0;title\u{9c}",
    "c1\u{90}dcs\u{9c}",
    "\u{8d}\u{8e}\u{8f}\u{9f}",
    // Separators, and blanks other than the space.
    "line\u{2028}separator",
    "paragraph\u{2029}separator",
    "no\u{a0}break",
    "\u{1680}ogham",
    "en\u{2002}em\u{2003}thin\u{2009}hair\u{200a}",
    "narrow\u{202f}medium\u{205f}",
    "\u{3000}ideographic\u{3000}",
    // Bidirectional controls.
    "evil\u{202e}gnp.exe",
    "\u{202a}\u{202b}\u{202c}\u{202d}",
    "\u{2066}isolate\u{2069}",
    "\u{2067}\u{2068}",
    "left\u{200e}right\u{200f}",
    "arabic\u{61c}mark",
    "access\u{202e}\u{2066}// admin\u{2069}\u{2066}",
    // Characters without width.
    "ma\u{200b}lloc",
    "ma\u{200c}lloc",
    "ma\u{200d}lloc",
    "ma\u{2060}lloc",
    "\u{feff}malloc",
    "ma\u{ad}lloc",
    "ma\u{34f}lloc",
    "invisible\u{2061}\u{2062}\u{2063}\u{2064}",
    "deprecated\u{206a}\u{206f}",
    "mongolian\u{180e}\u{180b}",
    "hangul\u{115f}\u{1160}\u{3164}\u{ffa0}",
    "khmer\u{17b4}\u{17b5}",
    "shorthand\u{1bca0}",
    "music\u{1d173}\u{1d17a}",
    "variation\u{fe0f}\u{e0100}",
    "reserved\u{2065}\u{fff0}",
    // Tags, which can hide text in text.
    "tag\u{e0001}\u{e0041}\u{e0042}\u{e007f}",
    "\u{e0000}\u{e0fff}",
    // Formatting characters.
    "annotated\u{fff9}a\u{fffa}b\u{fffb}",
    "\u{600}\u{605}\u{6dd}\u{70f}\u{8e2}",
    "\u{110bd}\u{13430}",
    // Noncharacters.
    "\u{fdd0}\u{fdef}",
    "\u{fffe}",
    "\u{ffff}",
    "\u{1fffe}\u{10ffff}",
    // Markup and scripts.
    "</text>",
    "</svg>",
    "</title><script>alert(1)</script>",
    "<script>alert(1)</script>",
    "]]>",
    "]]><script>alert(1)</script><![CDATA[",
    "<!--",
    "-->",
    "<?xml version=\"1.0\"?>",
    "<!DOCTYPE svg [<!ENTITY a \"b\">]>",
    "&",
    "&amp;",
    "&lt;script&gt;",
    "&#x1b;",
    "&#0;",
    "&undefined;",
    "\"><image href=\"http://example.com/x\"/>",
    "\" onload=\"alert(1)",
    "' onload='alert(1)",
    "<a xlink:href=\"javascript:alert(1)\">a</a>",
    "<foreignObject><body onload=\"alert(1)\"/></foreignObject>",
    "<style>*{display:none}</style>",
    "javascript:alert(1)",
    "');alert(1);('",
    "\\');alert(1)//",
    "\u{2028}alert(1)//",
    "${jndi:ldap://example.com}",
    "{{7*7}}",
    // JSON.
    "\"",
    "\\",
    "\\u001b",
    "\\ud800",
    "\",\"inuse_bytes\":0,\"x\":\"",
    "}]}",
    "__proto__",
    // Folded stacks.
    "a;b",
    ";",
    ";;;",
    "a b 5",
    "5",
    "bucket 64",
    " 5",
    "1e5",
    "5 10",
    " leading and trailing ",
    "# a comment",
    "#",
    "# 7",
    "-",
    "--",
    "[k]",
    "name_[k]",
    "NaN",
    "inf 1.5",
    // Shells, formats, sizes.
    "-rf",
    "$(touch /tmp/x)",
    "`touch x`",
    "a b",
    "*",
    "~",
    "'",
    "%s%s%n",
    "../../etc/passwd",
    "=cmd|' /C calc'!A0",
    "\u{fffd}",
    "e\u{301}\u{301}\u{301}\u{301}",
    "木\u{30b7}\u{30b9}",
    "🦀",
    "",
];

/// Whether a name must not bring this character into any output. This function uses only the ranges
/// of the standard's charts, and not the code under test.
pub(crate) fn is_unclean(c: char) -> bool {
    let number = u32::from(c);
    c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(
            number,
            0x61c | 0xad | 0x34f | 0x115f | 0x1160 | 0x3164 | 0xfeff | 0xffa0
        )
        || (0x180b..=0x180f).contains(&number)
        || (0x200b..=0x200f).contains(&number)
        || (0x2028..=0x202e).contains(&number)
        || (0x2060..=0x206f).contains(&number)
        || (0xfdd0..=0xfdef).contains(&number)
        || (0xfe00..=0xfe0f).contains(&number)
        || (0xfff0..=0xfffb).contains(&number)
        || (0xe0000..=0xe0fff).contains(&number)
        || number & 0xfffe == 0xfffe
}
