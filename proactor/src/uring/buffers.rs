//! The buffers of a ring of provided buffers, and where each of them is: with
//! the kernel, or out with whoever has its token.

/// A buffer that the kernel has filled. There is one such token for each that
/// is out, it cannot be copied, and giving the buffer back takes it.
#[derive(Debug)]
pub struct Buffer {
    id: u16,
}

impl Buffer {
    pub fn id(&self) -> u16 {
        self.id
    }
}

/// Who has which buffer.
pub struct Accounts {
    with_kernel: Vec<bool>,
    /// How many the kernel has.
    free: usize,
}

impl Accounts {
    /// So many buffers, all out with nobody: `all` gives them to the kernel.
    pub fn new(count: u16) -> Self {
        let count = usize::from(count);
        Accounts { with_kernel: vec![true; count], free: count }
    }

    /// How many the kernel may fill.
    pub fn free(&self) -> usize {
        self.free
    }

    /// The kernel has filled this one.
    pub fn take(&mut self, id: u16) -> Buffer {
        let with_kernel = &mut self.with_kernel[usize::from(id)];
        assert!(*with_kernel, "buffer {id} is out already");
        *with_kernel = false;
        self.free -= 1;
        Buffer { id }
    }

    /// The kernel may fill this one again; its number.
    pub fn give_back(&mut self, Buffer { id }: Buffer) -> u16 {
        let with_kernel = &mut self.with_kernel[usize::from(id)];
        debug_assert!(!*with_kernel, "buffer {id} comes back twice");
        *with_kernel = true;
        self.free += 1;
        id
    }
}
