// SPDX-License-Identifier: GPL-3.0-or-later
//! Macros of Office documents (MS-OVBA): the source text of the modules out of their compressed streams, and what in it runs by itself or
//! reaches out of the document. Not here: the compiled form, which Office makes anew from the source where versions differ. Pure.

use super::field::{index, le16, le32, slice, text, utf16};
use memchr::memmem;

/// Bytes of one decompressed chunk.
const CHUNK: usize = 4096;
/// Source text of one module that is looked at.
const MOST: usize = 4 << 20;
/// Modules of one project.
const MODULES: usize = 2000;

/// Procedures that Office calls by itself.
const AUTORUN: &[&str] = &[
    "AutoExec",
    "AutoOpen",
    "Auto_Open",
    "AutoClose",
    "Auto_Close",
    "AutoNew",
    "AutoExit",
    "Auto_Exit",
    "Document_Open",
    "DocumentOpen",
    "Document_New",
    "Document_Close",
    "Document_BeforeClose",
    "Document_ContentControlOnEnter",
    "DocumentBeforeSave",
    "NewDocument",
    "Workbook_Open",
    "Workbook_Activate",
    "Workbook_BeforeClose",
    "Workbook_Close",
    "Workbook_SheetActivate",
    "Worksheet_Activate",
    "Worksheet_Calculate",
    "Worksheet_Change",
    "Presentation_Open",
    "SlideShowBegin",
    "OnSlideShowPageChange",
    "UserForm_Initialize",
    "UserForm_Activate",
    "Frame1_Layout",
    "InkEdit1_GotFocus",
    "InkPicture1_Painting",
    "Image1_MouseMove",
];

/// Words by which a macro reaches out of its document.
const CALLS: &[&str] = &[
    "Shell",
    "ShellExecute",
    "ShellExecuteA",
    "CreateObject",
    "GetObject",
    "CallByName",
    "WScript",
    "PowerShell",
    "cmd",
    "mshta",
    "rundll32",
    "regsvr32",
    "bitsadmin",
    "certutil",
    "URLDownloadToFile",
    "URLDownloadToFileA",
    "URLDownloadToFileW",
    "XMLHTTP",
    "ServerXMLHTTP",
    "WinHttpRequest",
    "ADODB",
    "SaveToFile",
    "Environ",
    "Kill",
    "RegWrite",
    "ExecuteExcel4Macro",
    "VirtualAlloc",
    "CreateThread",
    "CreateProcess",
    "CreateProcessA",
    "RtlMoveMemory",
    "WinExec",
    "Win32_Process",
    "FromBase64String",
    "MacScript",
    "AppleScriptTask",
];

/// Where the source of a module begins within its stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Module {
    pub(super) stream: String,
    pub(super) offset: usize,
}

/// The modules that the `dir` stream of a project lists (MS-OVBA 2.3.4.2).
pub(super) fn modules(dir: &[u8]) -> Vec<Module> {
    let list = decompress(dir);
    let (mut modules, mut stream, mut at) = (Vec::new(), String::new(), 0usize);
    while let (Some(id), Some(size)) = (le16(&list, at), le32(&list, at.saturating_add(2))) {
        // The record of the version says four and has six.
        let size = if id == 9 { 6 } else { index(size) };
        let Some(body) = slice(&list, at.saturating_add(6), size) else { break };
        match id {
            0x1a => stream = text(body),
            0x32 => stream = utf16(body),
            0x31 if modules.len() < MODULES => {
                let offset = index(le32(body, 0).unwrap_or_default());
                modules.push(Module { stream: stream.clone(), offset });
            }
            _ => {}
        }
        at = at.saturating_add(6).saturating_add(size);
    }
    modules
}

/// The source texts in a stream: where `dir` says, and wherever one begins as all do.
pub(super) fn sources(name: &str, stream: &[u8], modules: &[Module]) -> Vec<Vec<u8>> {
    let mut starts: Vec<usize> =
        modules.iter().filter(|module| module.stream.eq_ignore_ascii_case(name)).map(|module| module.offset).collect();
    // `Attribut` as eight plain characters behind the flags for them, the header of the chunk, and the mark of it all.
    let marked = memmem::find_iter(stream, b"\0Attribut").filter_map(|at| at.checked_sub(3));
    starts.extend(marked.filter(|at| stream.get(*at) == Some(&1)).take(16));
    starts.sort_unstable();
    starts.dedup();
    starts.truncate(32);
    let sources = starts.iter().map(|at| decompress(stream.get(*at..).unwrap_or_default()));
    sources.filter(|source| !source.is_empty()).collect()
}

/// Decompresses a container (MS-OVBA 2.4.1) as far as it makes sense.
pub(super) fn decompress(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if data.first() != Some(&1) {
        return out;
    }
    let mut at = 1;
    while let Some(header) = le16(data, at) {
        if header >> 12 & 7 != 3 || out.len() >= MOST {
            break;
        }
        let end = at.saturating_add(usize::from(header & 0xfff) + 3).min(data.len());
        let body = data.get(at + 2..end).unwrap_or_default();
        if header >> 15 == 0 {
            out.extend_from_slice(&body[..body.len().min(CHUNK)]);
        } else if !chunk(body, &mut out) {
            break;
        }
        at = end;
    }
    out
}

/// One chunk: flags for eight tokens, each a character or a copy from before. False: it makes no sense.
fn chunk(body: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let mut rest = body;
    while let Some((&flags, tokens)) = rest.split_first() {
        rest = tokens;
        for bit in 0..8 {
            let done = out.len() - start;
            if done >= CHUNK {
                return true;
            }
            if flags >> bit & 1 == 0 {
                let Some((&literal, next)) = rest.split_first() else { return true };
                out.push(literal);
                rest = next;
                continue;
            }
            let Some(token) = le16(rest, 0) else { return rest.is_empty() };
            rest = &rest[2..];
            // The further on, the more bits the offset has, and the fewer the length (2.4.1.3.19.1).
            let bits = (4..=12).find(|bits| 1usize << bits >= done).unwrap_or(12);
            let (length, offset) = (usize::from(token & 0xffff >> bits) + 3, usize::from(token >> (16 - bits)) + 1);
            if offset > done {
                return false;
            }
            for _ in 0..length.min(CHUNK - done) {
                out.push(out[out.len() - offset]);
            }
        }
    }
    true
}

/// What the modules of a document do.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Modules with a line that does something.
    pub(super) modules: usize,
    autorun: Vec<&'static str>,
    calls: Vec<&'static str>,
}

impl Facts {
    /// Takes in one source text.
    pub(super) fn learn(&mut self, source: &[u8]) {
        let text = String::from_utf8_lossy(source);
        let lines = text.lines().map(str::trim_start);
        let code = |line: &&str| {
            let first = line.split_whitespace().next().unwrap_or_default();
            !first.is_empty() && !first.starts_with('\'') && !["Attribute", "Option"].contains(&first)
        };
        let mut works = false;
        for line in lines.filter(code) {
            works = true;
            for word in line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.len() > 2) {
                note(&mut self.autorun, AUTORUN, word);
                note(&mut self.calls, CALLS, word);
            }
        }
        self.modules += usize::from(works);
    }

    /// What runs by itself, as a list; none when nothing does.
    pub(super) fn autorun(&self) -> Option<String> {
        (!self.autorun.is_empty()).then(|| self.autorun.join(" "))
    }

    /// What reaches out.
    pub(super) fn calls(&self) -> Option<String> {
        (!self.calls.is_empty()).then(|| self.calls.join(" "))
    }
}

fn note(found: &mut Vec<&'static str>, known: &[&'static str], word: &str) {
    if let Some(name) = known.iter().find(|name| name.eq_ignore_ascii_case(word))
        && !found.contains(name)
    {
        found.push(name);
    }
}

/// Whether a workbook of old Excel (MS-XLS) has a sheet of Excel 4 macros: the last byte of a BoundSheet8's head is 1.
pub(super) fn has_excel4(workbook: &[u8]) -> bool {
    let mut at = 0usize;
    while let (Some(id), Some(length)) = (le16(workbook, at), le16(workbook, at.saturating_add(2))) {
        match id {
            0x85 if workbook.get(at.saturating_add(9)) == Some(&1) => return true,
            // The end of the globals; sheets follow.
            0x0a => return false,
            _ => at = at.saturating_add(4).saturating_add(usize::from(length)),
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The example of MS-OVBA 3.2.3.
    #[test]
    fn the_example_of_the_specification() {
        let packed = b"\x01\x2f\xb0\x00\x23\x61\x61\x61\x62\x63\x64\x65\x82\x66\x00\x70\x61\x67\x68\x69\x6a\x01\x38\x08\x61\x6b\x6c\x00\x30\x6d\x6e\x6f\x70\x06\x71\x02\x70\x04\x10\x72\x73\x74\x75\x76\x10\x77\x78\x79\x7a\x00\x3c";
        assert_eq!(
            String::from_utf8_lossy(&decompress(packed)),
            "#aaabcdefaaaaghijaaaaaklaaamnopqaaaaaaaaaaaarstuvwxyzaaa"
        );
        assert_eq!(decompress(b"\x01\x19\xb0\x00abcdefgh\x00ijklmnop\x00qrstuv."), b"abcdefghijklmnopqrstuv.");
    }

    /// Text as a container of literals only.
    fn packed(text: &str) -> Vec<u8> {
        let tokens: Vec<u8> = text.as_bytes().chunks(8).flat_map(|eight| [&[0], eight].concat()).collect();
        let header = 0xb000 | (tokens.len() as u16 - 1);
        [&[1][..], &header.to_le_bytes(), &tokens].concat()
    }

    #[test]
    fn modules_are_found_by_their_list_and_by_their_look() {
        let record = |id: u16, body: &[u8]| [&id.to_le_bytes()[..], &(body.len() as u32).to_le_bytes(), body].concat();
        let version = [&9u16.to_le_bytes()[..], &4u32.to_le_bytes(), &[0; 6]].concat();
        let list = [version, record(0x1a, b"Module1"), record(0x31, &5u32.to_le_bytes())].concat();
        let raw = [&[1][..], &(0x3000 | (list.len() as u16 - 1)).to_le_bytes(), &list].concat();
        let found = modules(&raw);
        assert_eq!(found, [Module { stream: "Module1".into(), offset: 5 }]);
        let odd = [&b"junk!"[..], &packed("Sub x()\nEnd Sub")].concat();
        assert_eq!(sources("module1", &odd, &found), [b"Sub x()\nEnd Sub"]);
        assert_eq!(sources("other", &odd, &found), [b""; 0]);
        let usual = [&b"compiled"[..], &packed("Attribute VB_Name = \"a\"\nSub AutoOpen()")].concat();
        assert_eq!(sources("other", &usual, &[]).len(), 1);
    }

    #[test]
    fn what_runs_and_what_reaches_out() {
        let mut facts = Facts::default();
        facts.learn(b"Attribute VB_Name = \"a\"\r\nOption Explicit\r\n' Shell\r\n");
        assert_eq!((facts.modules, facts.autorun(), facts.calls()), (0, None, None));
        facts.learn(b"Private Sub AUTOOPEN()\n Set o = CreateObject(\"WScript.Shell\")\n Shellfish = 1\nEnd Sub");
        assert_eq!(facts.modules, 1);
        assert_eq!(facts.autorun().unwrap(), "AutoOpen");
        assert_eq!(facts.calls().unwrap(), "CreateObject WScript Shell");
    }

    #[test]
    fn sheets_of_excel_4() {
        let sheet = |kind: u8| [0x85, 0, 8, 0, 0, 0, 0, 0, 0, kind, 0, 0];
        let start = [9, 8, 2, 0, 0, 6];
        assert!(has_excel4(&[&start[..], &sheet(0), &sheet(1)].concat()));
        assert!(!has_excel4(&[&start[..], &sheet(0), &[10, 0, 0, 0], &sheet(1)].concat()));
    }

    proptest! {
        #[test]
        fn any_bytes_end(data: Vec<u8>, name: String) {
            decompress(&[&[1][..], &data].concat());
            modules(&data);
            sources(&name, &data, &[Module { stream: name.clone(), offset: data.len() / 2 }]);
            Facts::default().learn(&data);
            has_excel4(&data);
        }

        #[test]
        fn chunks_of_any_tokens_end(tokens in proptest::collection::vec(any::<u8>(), 1..4000)) {
            let header = 0xb000 | (tokens.len() as u16 - 1);
            let out = decompress(&[&[1][..], &header.to_le_bytes(), &tokens].concat());
            prop_assert!(out.len() <= CHUNK);
        }
    }
}
