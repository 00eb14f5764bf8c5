use crate::Fd;

/// A table of connections indexed by descriptor. The kernel gives out the
/// lowest free number (open(2)), so the table stays dense: no hashing, and no
/// allocation once it has grown to the largest descriptor.
pub struct Connections<T> {
    slots: Vec<Option<T>>,
    len: usize,
}

impl<T> Default for Connections<T> {
    fn default() -> Self {
        Connections { slots: Vec::new(), len: 0 }
    }
}

impl<T> Connections<T> {
    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds the connection of a descriptor that has just been accepted.
    pub fn insert(&mut self, fd: Fd, connection: T) {
        let slot = fd as usize;
        if slot >= self.slots.len() {
            self.slots.resize_with(slot + 1, || None);
        }
        self.slots[slot] = Some(connection);
        self.len += 1;
    }

    /// The connection of `fd`, unless it is gone.
    pub fn get_mut(&mut self, fd: Fd) -> Option<&mut T> {
        self.slots.get_mut(fd as usize)?.as_mut()
    }

    /// Takes the connection of `fd` out.
    pub fn remove(&mut self, fd: Fd) -> Option<T> {
        let connection = self.slots.get_mut(fd as usize)?.take()?;
        self.len -= 1;
        Some(connection)
    }

    /// Every connection with its descriptor, in the order of descriptors.
    pub fn iter(&self) -> impl Iterator<Item = (Fd, &T)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(fd, slot)| Some((fd as Fd, slot.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_that_comes_back_names_the_new_connection() {
        let mut table = Connections::default();
        table.insert(7, "first");
        assert_eq!(table.remove(7), Some("first"));
        assert_eq!(table.remove(7), None);
        table.insert(7, "second");
        assert_eq!(table.get_mut(7), Some(&mut "second"));
        assert_eq!(table.iter().collect::<Vec<_>>(), [(7, &"second")]);
        assert_eq!((table.len(), table.get_mut(-1)), (1, None));
    }
}
