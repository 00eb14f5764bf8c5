//! Who is registered, by token: a table in pieces, which grows by one of them
//! and moves nobody.

use crate::demultiplexer::Token;

/// How many places a piece has.
const PIECE: usize = 64;

/// Values by their tokens; the token of one that has gone is given out again.
pub struct Table<T> {
    pieces: Vec<Box<[Option<T>; PIECE]>>,
    /// Tokens from this one on have never been given out.
    end: Token,
    free: Vec<Token>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        let free = Vec::with_capacity(PIECE);
        Table { pieces: Vec::with_capacity(PIECE), end: 0, free }
    }
}

impl<T> Table<T> {
    /// Tokens below this one may be in use.
    pub fn end(&self) -> Token {
        self.end
    }

    /// The token of whoever is inserted next.
    pub fn next(&self) -> Token {
        self.free.last().copied().unwrap_or(self.end)
    }

    pub fn insert(&mut self, value: T) {
        let token = self.free.pop().unwrap_or_else(|| {
            if self.end as usize == self.pieces.len() * PIECE {
                self.pieces.push(Box::new([const { None }; PIECE]));
            }
            self.end += 1;
            self.end - 1
        });
        *self.place(token).expect("it was made above") = Some(value);
    }

    pub fn get(&self, token: Token) -> Option<&T> {
        let token = token as usize;
        self.pieces.get(token / PIECE)?[token % PIECE].as_ref()
    }

    #[inline]
    pub fn get_mut(&mut self, token: Token) -> Option<&mut T> {
        self.place(token)?.as_mut()
    }

    pub fn remove(&mut self, token: Token) -> Option<T> {
        let value = self.place(token)?.take()?;
        self.free.push(token);
        Some(value)
    }

    /// Everyone goes at once.
    pub fn clear(&mut self) {
        *self = Table::default();
    }

    #[inline]
    fn place(&mut self, token: Token) -> Option<&mut Option<T>> {
        let token = token as usize;
        Some(&mut self.pieces.get_mut(token / PIECE)?[token % PIECE])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_and_nobody_moves() {
        let mut table = Table::default();
        for n in 0..200 {
            assert_eq!(table.next(), n);
            table.insert(n);
        }
        let first: *const u32 = table.get(0).unwrap();
        assert_eq!(table.remove(70), Some(70));
        assert_eq!((table.remove(70), table.get_mut(70)), (None, None));
        assert_eq!(table.next(), 70);
        table.insert(1000);
        assert_eq!((table.get(70), table.end()), (Some(&1000), 200));
        for n in 200..1000 {
            table.insert(n);
        }
        assert_eq!(first, table.get(0).unwrap() as *const u32);
        assert_eq!(table.get(5000), None);
    }
}
