//! A reader of the protocol buffers wire format
//! (<https://protobuf.dev/programming-guides/encoding/>). The reader does without the message
//! definitions that the report is written with.

/// A message: its fields in the order of the bytes.
pub(super) struct Message<'a> {
    fields: Vec<(u64, Value<'a>)>,
}

/// The value of a field, by wire type.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    pub(super) fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(_) => &[],
        }
    }
}

impl<'a> Message<'a> {
    pub(super) fn parse(mut bytes: &'a [u8]) -> Result<Self, String> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes)?;
            let value = match key & 7 {
                0 => Value::Number(varint(&mut bytes)?),
                2 => {
                    let length = varint(&mut bytes)? as usize;
                    let (value, rest) = bytes.split_at_checked(length).ok_or("a field is cut")?;
                    bytes = rest;
                    Value::Bytes(value)
                }
                other => return Err(format!("wire type {other}")),
            };
            fields.push((key >> 3, value));
        }
        Ok(Self { fields })
    }

    pub(super) fn all(&self, field: u64) -> impl Iterator<Item = Value<'a>> {
        self.fields
            .iter()
            .filter(move |(number, _)| *number == field)
            .map(|(_, value)| *value)
    }

    pub(super) fn messages(&self, field: u64) -> Result<Vec<Self>, String> {
        self.all(field)
            .map(|value| Message::parse(value.bytes()))
            .collect()
    }

    /// Reads a number. A field that is left out is zero.
    pub(super) fn number(&self, field: u64) -> u64 {
        match self.all(field).next() {
            Some(Value::Number(number)) => number,
            _ => 0,
        }
    }

    pub(super) fn packed(&self, field: u64) -> Result<Vec<u64>, String> {
        let mut numbers = Vec::new();
        for value in self.all(field) {
            let mut bytes = value.bytes();
            while !bytes.is_empty() {
                numbers.push(varint(&mut bytes)?);
            }
        }
        Ok(numbers)
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or("a number is cut")?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err("a number is too long".to_owned())
}
