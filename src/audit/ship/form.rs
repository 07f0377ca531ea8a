//! What of a line is shipped. Either form has all that its hash was made of, or the digests of it.

use std::io::Write;

use crate::audit::{
    chain::{private_digest, slice_digest},
    line::{Line, NotALine},
};

/// How much of a line leaves the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// What a tenant may see; of the rest its salted digests, so that the hash can still be worked out.
    Public,
    /// The line as it is in the journal.
    Full,
}

impl Form {
    /// Appends the line, newline included. `line` comes without one.
    pub fn put(self, line: &[u8], out: &mut Vec<u8>) -> Result<(), NotALine> {
        match self {
            Self::Full => out.extend_from_slice(line),
            Self::Public => {
                let line = Line::parse(line)?;
                let (seq, kind, prev, hash) = (line.seq, line.line_type.as_str(), line.prev, line.hash);
                let private = private_digest(line.private.as_bytes());
                let visible = line.visible;
                // Writing to memory does not fail.
                let _ = write!(
                    out,
                    "{{\"seq\":{seq},\"type\":\"{kind}\",\"prev\":\"{prev}\",\"hash\":\"{hash}\",\"pub\":{visible},\
                     \"priv_digest\":\"{private}\""
                );
                for (at, slice) in line.slices.iter().enumerate() {
                    let before = if at == 0 { ",\"slice_digests\":[" } else { "," };
                    let _ = write!(out, "{before}\"{}\"", slice_digest(slice.as_bytes()));
                }
                out.extend_from_slice(if line.slices.is_empty() { b"}" } else { b"]}" });
            }
        }
        out.push(b'\n');
        Ok(())
    }
}

/// Appends a run of whole lines.
pub(super) fn put_all(form: Form, run: &[u8], out: &mut Vec<u8>) -> Result<(), NotALine> {
    run.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).try_for_each(|line| form.put(line, out))
}
