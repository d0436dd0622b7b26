//! The byte codec of wire and flash: little-endian, bounded, no allocation
//! before a length was checked. Derived for records by [`record!`](crate::record).

use std::fmt;

/// Why bytes were not what they claim to be: where, and what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// Offset in the decoded slice.
    pub at: usize,
    pub why: &'static str,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: {}", self.at, self.why)
    }
}

impl std::error::Error for DecodeError {}

/// Something with one byte form. `decode(encode(x)) == x`, and decoding never
/// panics and never allocates more than the input's length times a constant.
pub trait Codec: Sized {
    fn encode(&self, w: &mut Writer);
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError>;

    fn to_vec(&self) -> Vec<u8> {
        let mut w = Writer::default();
        self.encode(&mut w);
        w.into_vec()
    }

    /// Decodes the whole of `bytes`; trailing bytes are an error.
    fn from_slice(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        let value = Self::decode(&mut r)?;
        r.end()?;
        Ok(value)
    }
}

/// Appends encoded values to a vector.
#[derive(Default, Debug)]
pub struct Writer {
    out: Vec<u8>,
}

impl Writer {
    /// Goes on writing after what `out` holds.
    #[must_use]
    pub fn over(out: Vec<u8>) -> Writer {
        Writer { out }
    }
    pub fn bytes(&mut self, b: &[u8]) {
        self.out.extend_from_slice(b);
    }
    /// A length-prefixed byte string.
    pub fn blob(&mut self, b: &[u8]) {
        u32::try_from(b.len())
            .expect("blobs are bounded by limits::*")
            .encode(self);
        self.bytes(b);
    }
    pub fn zeros(&mut self, n: usize) {
        self.out.resize(self.out.len() + n, 0);
    }
    #[must_use]
    pub fn len(&self) -> usize {
        self.out.len()
    }
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        self.out
    }
}

/// Reads encoded values from a slice, never past its end.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    all: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    #[must_use]
    pub fn new(all: &'a [u8]) -> Reader<'a> {
        Reader { all, at: 0 }
    }
    #[must_use]
    pub fn at(&self) -> usize {
        self.at
    }
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.all.len() - self.at
    }
    #[must_use]
    pub fn fault(&self, why: &'static str) -> DecodeError {
        DecodeError { at: self.at, why }
    }
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let end = self.at.checked_add(n).filter(|&e| e <= self.all.len());
        let end = end.ok_or(self.fault("ends early"))?;
        let got = &self.all[self.at..end];
        self.at = end;
        Ok(got)
    }
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }
    /// A length-prefixed byte string.
    pub fn blob(&mut self) -> Result<&'a [u8], DecodeError> {
        let n = u32::decode(self)? as usize;
        self.take(n)
    }
    pub fn end(&self) -> Result<(), DecodeError> {
        if self.remaining() == 0 {
            Ok(())
        } else {
            Err(self.fault("trailing bytes"))
        }
    }
}

macro_rules! int {
    ($($t:ty),*) => {$(
        impl Codec for $t {
            fn encode(&self, w: &mut Writer) {
                w.bytes(&self.to_le_bytes());
            }
            fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Ok(<$t>::from_le_bytes(r.array()?))
            }
        }
    )*};
}
int!(u8, u16, u32, u64, u128, i32, i64);

impl Codec for bool {
    fn encode(&self, w: &mut Writer) {
        u8::from(*self).encode(w);
    }
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match u8::decode(r)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(r.fault("not a bool")),
        }
    }
}

impl Codec for String {
    fn encode(&self, w: &mut Writer) {
        w.blob(self.as_bytes());
    }
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let at = r.at();
        let bytes = r.blob()?;
        std::str::from_utf8(bytes)
            .map(str::to_owned)
            .map_err(|_| DecodeError {
                at,
                why: "not UTF-8",
            })
    }
}

/// A byte string (blob); `Vec<u8>` itself encodes as one, `Vec<T>` as a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub Vec<u8>);

impl Codec for Bytes {
    fn encode(&self, w: &mut Writer) {
        w.blob(&self.0);
    }
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Bytes(r.blob()?.to_vec()))
    }
}

impl<T: Codec> Codec for Vec<T> {
    fn encode(&self, w: &mut Writer) {
        u32::try_from(self.len())
            .expect("lists are bounded by limits::*")
            .encode(w);
        for item in self {
            item.encode(w);
        }
    }
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let n = u32::decode(r)? as usize;
        // Every element takes at least a byte, so a lying count fails before it allocates.
        if n > r.remaining() {
            return Err(r.fault("list longer than its bytes"));
        }
        let mut out = Vec::new();
        for _ in 0..n {
            out.push(T::decode(r)?);
        }
        Ok(out)
    }
}

impl<T: Codec> Codec for Option<T> {
    fn encode(&self, w: &mut Writer) {
        self.is_some().encode(w);
        if let Some(value) = self {
            value.encode(w);
        }
    }
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if bool::decode(r)? {
            Ok(Some(T::decode(r)?))
        } else {
            Ok(None)
        }
    }
}

impl<A: Codec, B: Codec> Codec for (A, B) {
    fn encode(&self, w: &mut Writer) {
        self.0.encode(w);
        self.1.encode(w);
    }
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok((A::decode(r)?, B::decode(r)?))
    }
}

/// Declares a struct together with its byte form: the fields in order.
#[macro_export]
macro_rules! record {
    ($(#[$doc:meta])* pub struct $name:ident { $($(#[$fdoc:meta])* pub $field:ident: $t:ty),* $(,)? }) => {
        $(#[$doc])*
        pub struct $name { $($(#[$fdoc])* pub $field: $t),* }
        impl $crate::base::codec::Codec for $name {
            #[allow(unused_variables, reason = "a record may have no fields")]
            fn encode(&self, w: &mut $crate::base::codec::Writer) {
                $($crate::base::codec::Codec::encode(&self.$field, w);)*
            }
            #[allow(unused_variables, reason = "a record may have no fields")]
            fn decode(r: &mut $crate::base::codec::Reader<'_>)
                -> Result<Self, $crate::base::codec::DecodeError> {
                Ok($name { $($field: $crate::base::codec::Codec::decode(r)?),* })
            }
        }
    };
}

/// Declares an enum of records together with its byte form: a `u16` tag, then
/// the variant's value. Tags are part of the format and never reused.
#[macro_export]
macro_rules! choice {
    ($(#[$doc:meta])* pub enum $name:ident { $($(#[$vdoc:meta])* $variant:ident($t:ty) = $tag:literal),* $(,)? }) => {
        $(#[$doc])*
        pub enum $name { $($(#[$vdoc])* $variant($t)),* }
        impl $name {
            /// The tag that stands for the variant in the byte form.
            #[must_use]
            pub fn tag(&self) -> u16 {
                match self { $($name::$variant(_) => $tag),* }
            }
            /// The variant's name, for logs and metrics.
            #[must_use]
            pub fn label(&self) -> &'static str {
                match self { $($name::$variant(_) => stringify!($variant)),* }
            }
            pub fn encode_value(&self, w: &mut $crate::base::codec::Writer) {
                match self { $($name::$variant(v) => $crate::base::codec::Codec::encode(v, w)),* }
            }
            pub fn decode_value(tag: u16, r: &mut $crate::base::codec::Reader<'_>)
                -> Result<Self, $crate::base::codec::DecodeError> {
                match tag {
                    $($tag => Ok($name::$variant($crate::base::codec::Codec::decode(r)?)),)*
                    _ => Err(r.fault(concat!("unknown ", stringify!($name), " tag"))),
                }
            }
        }
        impl $crate::base::codec::Codec for $name {
            fn encode(&self, w: &mut $crate::base::codec::Writer) {
                $crate::base::codec::Codec::encode(&self.tag(), w);
                self.encode_value(w);
            }
            fn decode(r: &mut $crate::base::codec::Reader<'_>)
                -> Result<Self, $crate::base::codec::DecodeError> {
                let tag = <u16 as $crate::base::codec::Codec>::decode(r)?;
                $name::decode_value(tag, r)
            }
        }
    };
}

/// Declares a field-less enum with its `u8` form.
#[macro_export]
macro_rules! code {
    ($(#[$doc:meta])* pub enum $name:ident { $($(#[$vdoc:meta])* $variant:ident = $tag:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant = $tag),* }
        impl $crate::base::codec::Codec for $name {
            fn encode(&self, w: &mut $crate::base::codec::Writer) {
                $crate::base::codec::Codec::encode(&(*self as u8), w);
            }
            fn decode(r: &mut $crate::base::codec::Reader<'_>)
                -> Result<Self, $crate::base::codec::DecodeError> {
                match <u8 as $crate::base::codec::Codec>::decode(r)? {
                    $($tag => Ok($name::$variant),)*
                    _ => Err(r.fault(concat!("unknown ", stringify!($name)))),
                }
            }
        }
    };
}
