//! The partition's files: read-only ones given at the start and those that the program writes. Their [content](super::content) lies
//! in the file area.
//!
//! There are no directories to speak of: any path can be created, and a prefix of an existing path counts as a directory.

use std::collections::BTreeMap;

use libc::{EACCES, EBADF, EEXIST, EFBIG, EINVAL, EISDIR, EMFILE, ENOENT, ENOSPC, ESPIPE};
use partita_abi::PAGE_SIZE;
use serde::{Deserialize, Serialize};

use super::content::{self, Content, Run};
use crate::memory::{FILE_AREA_BYTES, Memory};

/// Most open descriptors of a partition.
const DESCRIPTORS_MAX: usize = 1024;
/// Longest path.
const PATH_BYTES_MAX: usize = 4096;
const FILES_MAX: usize = 65_536;

/// A Linux error number.
pub type Errno = i32;

/// What a descriptor stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// Standard input.
    Input,
    /// Standard output.
    Output,
    /// Standard error.
    Error,
    /// `/dev/null`.
    Null,
    /// `/dev/zero`.
    Zero,
    /// `/dev/urandom`.
    Random,
    /// A file by its number.
    File(u64),
}

/// One open file; several descriptors may share it (`dup`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// What it is.
    pub target: Target,
    offset: u64,
    readable: bool,
    writable: bool,
    append: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Node {
    content: Content,
    read_only: bool,
}

/// What `stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// `S_IFREG | permissions` and so on.
    pub mode: u32,
    /// Length in bytes.
    pub bytes: u64,
    /// File number.
    pub inode: u64,
}

/// All files and descriptors of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    names: BTreeMap<String, u64>,
    nodes: BTreeMap<u64, Node>,
    opens: BTreeMap<u64, Open>,
    descriptors: BTreeMap<u32, u64>,
    next: u64,
}

impl Default for Files {
    fn default() -> Self {
        Self::new()
    }
}

impl Files {
    /// Standard input, output and error on descriptors 0 to 2.
    pub fn new() -> Self {
        let mut files = Self {
            names: BTreeMap::new(),
            nodes: BTreeMap::new(),
            opens: BTreeMap::new(),
            descriptors: BTreeMap::new(),
            next: 8,
        };
        for (number, target) in [Target::Input, Target::Output, Target::Error].into_iter().enumerate() {
            let (readable, writable) = (number == 0, number != 0);
            files.opens.insert(number as u64, Open { target, offset: 0, readable, writable, append: false });
            files.descriptors.insert(number as u32, number as u64);
        }
        files
    }

    /// Adds a read-only file, in place of one with the same path.
    pub fn add_read_only(&mut self, memory: &Memory, path: &str, data: &[u8]) -> Result<(), Errno> {
        let number = self.create(normalise(path), memory)?;
        self.reserve(number, data.len() as u64)?;
        let node = self.nodes.get_mut(&number).ok_or(EBADF)?;
        node.read_only = true;
        node.content.resize(memory, data.len() as u64)?;
        node.content.write(memory, 0, data)
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// An empty file with this name; the one that had it loses it.
    fn create(&mut self, path: String, memory: &Memory) -> Result<u64, Errno> {
        if self.nodes.len() >= FILES_MAX {
            return Err(ENOSPC);
        }
        let number = self.number();
        self.nodes.insert(number, Node::default());
        if let Some(replaced) = self.names.insert(path, number) {
            self.collect(memory, replaced)?;
        }
        Ok(number)
    }

    fn runs(&self) -> Vec<Run> {
        self.nodes.values().flat_map(|node| node.content.runs()).copied().collect()
    }

    /// Gives a file pages for `bytes`.
    fn reserve(&mut self, number: u64, bytes: u64) -> Result<(), Errno> {
        if !self.nodes.get(&number).ok_or(EBADF)?.content.lacks(bytes) {
            return Ok(());
        }
        let free = content::free(self.runs()).ok_or(libc::EIO)?;
        self.nodes.get_mut(&number).ok_or(EBADF)?.content.grow(bytes, free)
    }

    /// Bytes from the beginning of the file area to the end of the last page that belongs to a file.
    pub fn area_bytes(&self) -> u64 {
        self.runs().into_iter().map(Run::end).max().unwrap_or(0) * PAGE_SIZE
    }

    /// Whether every page belongs to one file at most and every file has the pages that it needs, which a saved state may deny.
    pub fn is_consistent(&self) -> bool {
        content::free(self.runs()).is_some() && self.nodes.values().all(|node| node.content.is_whole())
    }

    /// `open(2)`.
    pub fn open(&mut self, memory: &Memory, path: &str, flags: i32) -> Result<u32, Errno> {
        if path.is_empty() {
            return Err(ENOENT);
        }
        if path.len() > PATH_BYTES_MAX {
            return Err(libc::ENAMETOOLONG);
        }
        let path = normalise(path);
        let writable = flags & libc::O_ACCMODE != libc::O_RDONLY;
        let readable = flags & libc::O_ACCMODE != libc::O_WRONLY;
        let target = match path.as_str() {
            "/dev/null" => Target::Null,
            "/dev/zero" => Target::Zero,
            "/dev/urandom" | "/dev/random" => Target::Random,
            "/dev/stdin" => Target::Input,
            "/dev/stdout" => Target::Output,
            "/dev/stderr" => Target::Error,
            _ => Target::File(self.open_node(memory, path, flags, writable)?),
        };
        let append = flags & libc::O_APPEND != 0;
        self.install(Open { target, offset: 0, readable, writable, append })
    }

    fn open_node(&mut self, memory: &Memory, path: String, flags: i32, writable: bool) -> Result<u64, Errno> {
        match self.names.get(&path).copied() {
            Some(_) if flags & libc::O_CREAT != 0 && flags & libc::O_EXCL != 0 => Err(EEXIST),
            Some(number) => {
                let node = self.nodes.get_mut(&number).ok_or(ENOENT)?;
                if writable && node.read_only {
                    return Err(EACCES);
                }
                if writable && flags & libc::O_TRUNC != 0 {
                    node.content.resize(memory, 0)?;
                }
                Ok(number)
            }
            None if self.is_directory(&path) => Err(EISDIR),
            None if flags & libc::O_CREAT != 0 => self.create(path, memory),
            None => Err(ENOENT),
        }
    }

    fn install(&mut self, open: Open) -> Result<u32, Errno> {
        let descriptor = self.free_descriptor(0)?;
        let number = self.number();
        self.opens.insert(number, open);
        self.descriptors.insert(descriptor, number);
        Ok(descriptor)
    }

    fn free_descriptor(&self, from: u32) -> Result<u32, Errno> {
        (from..DESCRIPTORS_MAX as u32).find(|d| !self.descriptors.contains_key(d)).ok_or(EMFILE)
    }

    /// `close(2)`.
    pub fn close(&mut self, memory: &Memory, descriptor: u32) -> Result<(), Errno> {
        let number = self.descriptors.remove(&descriptor).ok_or(EBADF)?;
        if !self.descriptors.values().any(|other| *other == number)
            && let Some(Open { target: Target::File(node), .. }) = self.opens.remove(&number)
        {
            self.collect(memory, node)?;
        }
        Ok(())
    }

    /// Frees a file that has neither a name nor a descriptor.
    fn collect(&mut self, memory: &Memory, node: u64) -> Result<(), Errno> {
        let named = self.names.values().any(|n| *n == node);
        let open = self.opens.values().any(|o| o.target == Target::File(node));
        if !named
            && !open
            && let Some(mut node) = self.nodes.remove(&node)
        {
            node.content.resize(memory, 0)?;
        }
        Ok(())
    }

    /// `dup(2)` and `fcntl(F_DUPFD)` (with a lowest number), `dup2(2)` (with an exact one).
    pub fn duplicate(
        &mut self,
        memory: &Memory,
        descriptor: u32,
        from: u32,
        exact: bool,
    ) -> Result<u32, Errno> {
        let number = *self.descriptors.get(&descriptor).ok_or(EBADF)?;
        let target = if exact { from } else { self.free_descriptor(from)? };
        if target >= DESCRIPTORS_MAX as u32 {
            return Err(EBADF);
        }
        if exact && target != descriptor && self.descriptors.contains_key(&target) {
            self.close(memory, target)?;
        }
        self.descriptors.insert(target, number);
        Ok(target)
    }

    /// The open file behind a descriptor.
    pub fn get(&self, descriptor: u32) -> Result<&Open, Errno> {
        self.descriptors.get(&descriptor).and_then(|n| self.opens.get(n)).ok_or(EBADF)
    }

    fn get_mut(&mut self, descriptor: u32) -> Result<&mut Open, Errno> {
        let number = self.descriptors.get(&descriptor).ok_or(EBADF)?;
        self.opens.get_mut(number).ok_or(EBADF)
    }

    /// Reads from a file (not from a stream) at its offset, or at `at` without moving it.
    pub fn read(
        &mut self,
        memory: &Memory,
        descriptor: u32,
        at: Option<u64>,
        bytes: usize,
    ) -> Result<Vec<u8>, Errno> {
        let open = self.get(descriptor)?.clone();
        if !open.readable {
            return Err(EBADF);
        }
        let data = match open.target {
            Target::Null => Vec::new(),
            Target::Zero => vec![0; bytes],
            Target::Random => {
                let mut data = vec![0; bytes];
                crate::loader::fill_random(&mut data).map_err(|_| libc::EIO)?;
                data
            }
            Target::File(node) => {
                let content = &self.nodes.get(&node).ok_or(EBADF)?.content;
                content.read(memory, at.unwrap_or(open.offset), bytes)?
            }
            Target::Input | Target::Output | Target::Error => return Err(EINVAL),
        };
        if at.is_none() {
            self.get_mut(descriptor)?.offset += data.len() as u64;
        }
        Ok(data)
    }

    /// Writes to a file (not to a stream) at its offset, or at `at` without moving it.
    pub fn write(
        &mut self,
        memory: &Memory,
        descriptor: u32,
        at: Option<u64>,
        bytes: &[u8],
    ) -> Result<usize, Errno> {
        let open = self.get(descriptor)?.clone();
        if !open.writable {
            return Err(EBADF);
        }
        let Target::File(number) = open.target else { return Ok(bytes.len()) };
        let length = self.nodes.get(&number).ok_or(EBADF)?.content.bytes();
        let start = at.unwrap_or(if open.append { length } else { open.offset });
        let end = start.checked_add(bytes.len() as u64).filter(|end| *end <= FILE_AREA_BYTES).ok_or(EFBIG)?;
        self.reserve(number, end)?;
        let content = &mut self.nodes.get_mut(&number).ok_or(EBADF)?.content;
        content.resize(memory, end.max(length))?;
        content.write(memory, start, bytes)?;
        if at.is_none() {
            self.get_mut(descriptor)?.offset = end;
        }
        Ok(bytes.len())
    }

    /// `lseek(2)`.
    pub fn seek(&mut self, descriptor: u32, offset: i64, whence: i32) -> Result<u64, Errno> {
        let length = match self.get(descriptor)?.target {
            Target::File(node) => self.nodes.get(&node).ok_or(EBADF)?.content.bytes() as i64,
            Target::Null | Target::Zero | Target::Random => 0,
            _ => return Err(ESPIPE),
        };
        let open = self.get_mut(descriptor)?;
        let base = match whence {
            libc::SEEK_SET => 0,
            libc::SEEK_CUR => open.offset as i64,
            libc::SEEK_END => length,
            _ => return Err(EINVAL),
        };
        let place = base.checked_add(offset).filter(|p| *p >= 0).ok_or(EINVAL)?;
        open.offset = place as u64;
        Ok(open.offset)
    }

    /// `ftruncate(2)`.
    pub fn truncate(&mut self, memory: &Memory, descriptor: u32, bytes: u64) -> Result<(), Errno> {
        let open = self.get(descriptor)?.clone();
        let Target::File(number) = open.target else { return Err(EINVAL) };
        if !open.writable {
            return Err(EINVAL);
        }
        if bytes > FILE_AREA_BYTES {
            return Err(EFBIG);
        }
        self.reserve(number, bytes)?;
        self.nodes.get_mut(&number).ok_or(EBADF)?.content.resize(memory, bytes)
    }

    /// `unlink(2)`.
    pub fn unlink(&mut self, memory: &Memory, path: &str) -> Result<(), Errno> {
        let path = normalise(path);
        let number = *self.names.get(&path).ok_or(ENOENT)?;
        if self.nodes.get(&number).is_some_and(|n| n.read_only) {
            return Err(EACCES);
        }
        self.names.remove(&path);
        self.collect(memory, number)
    }

    /// `rename(2)`.
    pub fn rename(&mut self, memory: &Memory, from: &str, to: &str) -> Result<(), Errno> {
        let (from, to) = (normalise(from), normalise(to));
        let number = *self.names.get(&from).ok_or(ENOENT)?;
        let read_only = |files: &Self, path: &String| {
            files.names.get(path).and_then(|n| files.nodes.get(n)).is_some_and(|n| n.read_only)
        };
        if read_only(self, &from) || read_only(self, &to) {
            return Err(EACCES);
        }
        self.names.remove(&from);
        if let Some(replaced) = self.names.insert(to, number) {
            self.collect(memory, replaced)?;
        }
        Ok(())
    }

    fn is_directory(&self, path: &str) -> bool {
        let prefix = if path == "/" { "/".to_owned() } else { format!("{path}/") };
        path == "/"
            || path == "/tmp"
            || self.names.range(prefix.clone()..).next().is_some_and(|(n, _)| n.starts_with(&prefix))
    }

    /// `stat(2)`.
    pub fn stat_path(&self, path: &str) -> Result<Stat, Errno> {
        let path = normalise(path);
        if let Some(number) = self.names.get(&path) {
            return self.stat_node(*number);
        }
        match path.as_str() {
            "/dev/null" | "/dev/zero" | "/dev/urandom" => {
                Ok(Stat { mode: libc::S_IFCHR | 0o666, bytes: 0, inode: 1 })
            }
            _ if self.is_directory(&path) => Ok(Stat { mode: libc::S_IFDIR | 0o755, bytes: 4096, inode: 2 }),
            _ => Err(ENOENT),
        }
    }

    /// `fstat(2)`.
    pub fn stat_descriptor(&self, descriptor: u32) -> Result<Stat, Errno> {
        match &self.get(descriptor)?.target {
            Target::File(node) => self.stat_node(*node),
            // A pipe: buffered by line or block as the program's libc likes, and not seekable.
            Target::Input | Target::Output | Target::Error => {
                Ok(Stat { mode: libc::S_IFIFO | 0o600, bytes: 0, inode: 3 })
            }
            _ => Ok(Stat { mode: libc::S_IFCHR | 0o666, bytes: 0, inode: 1 }),
        }
    }

    fn stat_node(&self, number: u64) -> Result<Stat, Errno> {
        let node = self.nodes.get(&number).ok_or(ENOENT)?;
        let mode = libc::S_IFREG | if node.read_only { 0o444 } else { 0o644 };
        Ok(Stat { mode, bytes: node.content.bytes(), inode: number })
    }
}

/// Makes a path absolute and takes `.`, `..` and empty parts out.
fn normalise(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Layout;

    fn memory() -> Memory {
        Memory::new(Layout { program_bytes: 4 << 20, ranks: 1, ring_bytes: 16 << 10 }).unwrap()
    }

    #[test]
    fn a_written_file_reads_back_and_vanishes_with_its_last_descriptor() {
        let (memory, mut files) = (memory(), Files::new());
        let fd = files.open(&memory, "out.txt", libc::O_RDWR | libc::O_CREAT).unwrap();
        assert_eq!(fd, 3);
        files.write(&memory, fd, None, b"hello").unwrap();
        files.write(&memory, fd, Some(8), b"!").unwrap();
        files.seek(fd, 0, libc::SEEK_SET).unwrap();
        files.unlink(&memory, "/out.txt").unwrap();
        assert_eq!(files.read(&memory, fd, None, 100).unwrap(), b"hello\0\0\0!");
        files.close(&memory, fd).unwrap();
        assert!(files.nodes.is_empty());
        let mut page = [1; PAGE_SIZE as usize];
        memory.read(crate::memory::FILES_BASE, &mut page).unwrap();
        assert_eq!(page, [0; PAGE_SIZE as usize], "its page is free");
    }

    #[test]
    fn read_only_files_cannot_be_changed() {
        let (memory, mut files) = (memory(), Files::new());
        files.add_read_only(&memory, "/data/in", b"lost").unwrap();
        files.add_read_only(&memory, "/data/../data/in", b"abc").unwrap();
        assert_eq!(files.nodes.len(), 1);
        assert_eq!(files.open(&memory, "/data/in", libc::O_RDWR), Err(EACCES));
        assert_eq!(files.unlink(&memory, "/data/in"), Err(EACCES));
        assert_eq!(files.open(&memory, "/data", libc::O_RDONLY), Err(EISDIR));
        let fd = files.open(&memory, "/data/in", libc::O_RDONLY).unwrap();
        assert_eq!(files.read(&memory, fd, None, 10).unwrap(), b"abc");
    }

    #[test]
    fn the_content_moves_with_the_file_area_and_the_rest_with_the_state() {
        let (here, mut files) = (memory(), Files::new());
        files.add_read_only(&here, "in", &[7; 5000]).unwrap();
        let fd = files.open(&here, "out", libc::O_RDWR | libc::O_CREAT).unwrap();
        for round in 0..100_u8 {
            files.write(&here, fd, None, &[round; 1000]).unwrap();
        }
        let mut area = vec![0; files.area_bytes() as usize];
        here.read(crate::memory::FILES_BASE, &mut area).unwrap();
        let state = postcard::to_stdvec(&files).unwrap();
        assert!(state.len() < 200, "{} bytes", state.len());
        let (there, mut arrived): (_, Files) = (memory(), postcard::from_bytes(&state).unwrap());
        there.write(crate::memory::FILES_BASE, &area).unwrap();
        assert!(arrived.is_consistent());
        for path in ["in", "out"] {
            let read = |files: &mut Files, memory: &Memory| {
                let fd = files.open(memory, path, libc::O_RDONLY).unwrap();
                files.read(memory, fd, None, usize::MAX).unwrap()
            };
            assert_eq!(read(&mut arrived, &there), read(&mut files, &here), "{path}");
        }
    }

    #[test]
    fn two_files_in_the_same_pages_are_noticed() {
        let (memory, mut files) = (memory(), Files::new());
        files.add_read_only(&memory, "a", b"a").unwrap();
        assert!(files.is_consistent());
        let mut twice = files.clone();
        let node = twice.nodes.values().next().unwrap().clone();
        twice.nodes.insert(1000, node);
        assert!(!twice.is_consistent());
        for node in files.nodes.values_mut() {
            node.content = postcard::from_bytes(&[1, 0, 1, 0x81, 0x20]).unwrap();
        }
        assert!(!files.is_consistent(), "4097 bytes in one page");
        for node in files.nodes.values_mut() {
            let whole_area = [0, 0xff, 0xff, 0xff, 0xff, 0x0f];
            let runs: Vec<u8> = [0x80, 0x10].into_iter().chain(whole_area.repeat(2048)).chain([0]).collect();
            node.content = postcard::from_bytes(&runs).unwrap();
        }
        assert!(!files.is_consistent(), "more pages than there are");
    }

    #[test]
    fn limits_hold() {
        let (memory, mut files) = (memory(), Files::new());
        let fd = files.open(&memory, "big", libc::O_WRONLY | libc::O_CREAT).unwrap();
        assert_eq!(files.write(&memory, fd, Some(FILE_AREA_BYTES), b"x"), Err(EFBIG));
        assert_eq!(files.write(&memory, fd, Some(u64::MAX), b"x"), Err(EFBIG));
        assert_eq!(files.truncate(&memory, fd, FILE_AREA_BYTES + 1), Err(EFBIG));
        files.truncate(&memory, fd, FILE_AREA_BYTES).unwrap();
        let other = files.open(&memory, "other", libc::O_WRONLY | libc::O_CREAT).unwrap();
        assert_eq!(files.write(&memory, other, None, b"x"), Err(ENOSPC));
        files.truncate(&memory, fd, 0).unwrap();
        assert_eq!(files.write(&memory, other, None, b"x"), Ok(1));
        while files.open(&memory, "/dev/null", 0).is_ok() {}
        assert_eq!(files.descriptors.len(), DESCRIPTORS_MAX);
    }
}
