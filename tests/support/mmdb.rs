// SPDX-License-Identifier: GPL-3.0-or-later
//! Writes small MaxMind DB files (format version 2.0, maxmind.github.io/MaxMind-DB) of IPv4 networks, for tests: the real ones may not be shipped.

use std::net::Ipv4Addr;

/// A value of a record.
#[derive(Debug, Clone)]
pub enum Value<'a> {
    /// Text.
    Text(&'a str),
    /// A number of 32 bits.
    Number(u32),
    /// Names and values.
    Map(Vec<(&'a str, Value<'a>)>),
}

#[derive(Debug, Clone, Copy)]
enum Branch {
    Nothing,
    Node(usize),
    Data(usize),
}

/// The bytes of a file in which each network has a record.
pub fn write(networks: &[(Ipv4Addr, u8, Value<'_>)]) -> Vec<u8> {
    let (mut nodes, mut data) = (vec![[Branch::Nothing; 2]], Vec::new());
    for (network, prefix, value) in networks {
        let offset = data.len();
        put(&mut data, value);
        let (bits, mut at) = (network.to_bits(), 0);
        for depth in 0..*prefix {
            let side = (bits >> (31 - depth) & 1) as usize;
            if depth + 1 == *prefix {
                nodes[at][side] = Branch::Data(offset);
            } else if let Branch::Node(next) = nodes[at][side] {
                at = next;
            } else {
                nodes.push([Branch::Nothing; 2]);
                nodes[at][side] = Branch::Node(nodes.len() - 1);
                at = nodes.len() - 1;
            }
        }
    }
    let mut file = Vec::new();
    for branch in nodes.iter().flatten() {
        let record = match branch {
            Branch::Nothing => nodes.len(),
            Branch::Node(node) => *node,
            Branch::Data(offset) => nodes.len() + 16 + offset,
        };
        file.extend(&(record as u32).to_be_bytes()[1..]);
    }
    file.extend([0; 16]);
    file.extend(&data);
    file.extend(b"\xab\xcd\xefMaxMind.com");
    metadata(&mut file, nodes.len() as u32);
    file
}

fn metadata(file: &mut Vec<u8>, nodes: u32) {
    file.push(7 << 5 | 9);
    let numbers = [("node_count", 6, nodes), ("record_size", 5, 24), ("ip_version", 5, 4)];
    let versions = [("binary_format_major_version", 5, 2), ("binary_format_minor_version", 5, 0)];
    for (key, kind, number) in numbers.into_iter().chain(versions) {
        text(file, key);
        unsigned(file, kind, number);
    }
    text(file, "database_type");
    text(file, "Octroi-Test");
    // Types above 7 have a byte of their own: an array, a map, a number of 64 bits.
    text(file, "languages");
    file.extend([0, 11 - 7]);
    text(file, "description");
    file.push(7 << 5);
    text(file, "build_epoch");
    file.extend([1, 9 - 7, 1]);
}

fn put(out: &mut Vec<u8>, value: &Value<'_>) {
    match value {
        Value::Text(words) => text(out, words),
        Value::Number(number) => unsigned(out, 6, *number),
        Value::Map(entries) => {
            out.push(7 << 5 | entries.len() as u8);
            for (key, value) in entries {
                text(out, key);
                put(out, value);
            }
        }
    }
}

fn unsigned(out: &mut Vec<u8>, kind: u8, number: u32) {
    let bytes: Vec<u8> = number.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
    out.push(kind << 5 | bytes.len() as u8);
    out.extend(bytes);
}

fn text(out: &mut Vec<u8>, words: &str) {
    match words.len() {
        length @ 0..29 => out.push(2 << 5 | length as u8),
        length => out.extend([2 << 5 | 29, (length - 29) as u8]),
    }
    out.extend(words.bytes());
}
