//! The partition's files: read-only ones given at the start and writable ones that live in the VMM and move along.
//!
//! There are no directories to speak of: any path can be created, and a prefix of an existing path counts as a directory.

use std::collections::BTreeMap;

use libc::{EACCES, EBADF, EEXIST, EFBIG, EINVAL, EISDIR, EMFILE, ENOENT, ENOSPC, ESPIPE};
use serde::{Deserialize, Serialize};

/// Most open descriptors of a partition.
const DESCRIPTORS_MAX: usize = 1024;
/// Most bytes of all files of a partition together.
pub const FILE_BYTES_MAX: u64 = 1 << 30;
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
    data: Vec<u8>,
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

/// Content of the read-only files by their number: it never changes, so it moves before the blackout.
pub type ReadOnly = Vec<(u64, Vec<u8>)>;

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

    /// Adds a read-only file.
    pub fn add_read_only(&mut self, path: &str, data: Vec<u8>) {
        let node = self.number();
        self.nodes.insert(node, Node { data, read_only: true });
        self.names.insert(normalise(path), node);
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Takes the content of the read-only files out, without copying it.
    pub fn take_read_only(&mut self) -> ReadOnly {
        let read_only = self.nodes.iter_mut().filter(|(_, node)| node.read_only);
        read_only.map(|(number, node)| (*number, std::mem::take(&mut node.data))).collect()
    }

    /// Only the content of the read-only files.
    pub fn read_only_content(&self) -> ReadOnly {
        self.nodes.iter().filter(|(_, n)| n.read_only).map(|(k, n)| (*k, n.data.clone())).collect()
    }

    /// Puts back what [`Files::take_read_only`] took out; numbers it does not know are ignored.
    pub fn join_read_only(&mut self, content: ReadOnly) {
        for (number, data) in content {
            if let Some(node) = self.nodes.get_mut(&number).filter(|node| node.read_only) {
                node.data = data;
            }
        }
    }

    fn used_bytes(&self) -> u64 {
        self.nodes.values().map(|n| n.data.len() as u64).sum()
    }

    /// `open(2)`.
    pub fn open(&mut self, path: &str, flags: i32) -> Result<u32, Errno> {
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
            _ => Target::File(self.open_node(&path, flags, writable)?),
        };
        let append = flags & libc::O_APPEND != 0;
        self.install(Open { target, offset: 0, readable, writable, append })
    }

    fn open_node(&mut self, path: &str, flags: i32, writable: bool) -> Result<u64, Errno> {
        match self.names.get(path).copied() {
            Some(_) if flags & libc::O_CREAT != 0 && flags & libc::O_EXCL != 0 => Err(EEXIST),
            Some(number) => {
                let node = self.nodes.get_mut(&number).ok_or(ENOENT)?;
                if writable && node.read_only {
                    return Err(EACCES);
                }
                if writable && flags & libc::O_TRUNC != 0 {
                    node.data.clear();
                }
                Ok(number)
            }
            None if self.is_directory(path) => Err(EISDIR),
            None if flags & libc::O_CREAT != 0 => {
                if self.nodes.len() >= FILES_MAX {
                    return Err(ENOSPC);
                }
                let number = self.number();
                self.nodes.insert(number, Node::default());
                self.names.insert(path.to_owned(), number);
                Ok(number)
            }
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
    pub fn close(&mut self, descriptor: u32) -> Result<(), Errno> {
        let number = self.descriptors.remove(&descriptor).ok_or(EBADF)?;
        if !self.descriptors.values().any(|other| *other == number)
            && let Some(Open { target: Target::File(node), .. }) = self.opens.remove(&number)
        {
            self.collect(node);
        }
        Ok(())
    }

    /// Frees a file that has neither a name nor a descriptor.
    fn collect(&mut self, node: u64) {
        let named = self.names.values().any(|n| *n == node);
        let open = self.opens.values().any(|o| o.target == Target::File(node));
        if !named && !open {
            self.nodes.remove(&node);
        }
    }

    /// `dup(2)` and `fcntl(F_DUPFD)` (with a lowest number), `dup2(2)` (with an exact one).
    pub fn duplicate(&mut self, descriptor: u32, from: u32, exact: bool) -> Result<u32, Errno> {
        let number = *self.descriptors.get(&descriptor).ok_or(EBADF)?;
        let target = if exact { from } else { self.free_descriptor(from)? };
        if target >= DESCRIPTORS_MAX as u32 {
            return Err(EBADF);
        }
        if exact && target != descriptor && self.descriptors.contains_key(&target) {
            self.close(target)?;
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
    pub fn read(&mut self, descriptor: u32, at: Option<u64>, bytes: usize) -> Result<Vec<u8>, Errno> {
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
                let data = &self.nodes.get(&node).ok_or(EBADF)?.data;
                let start = usize::try_from(at.unwrap_or(open.offset)).unwrap_or(usize::MAX).min(data.len());
                data[start..start.saturating_add(bytes).min(data.len())].to_vec()
            }
            Target::Input | Target::Output | Target::Error => return Err(EINVAL),
        };
        if at.is_none() {
            self.get_mut(descriptor)?.offset += data.len() as u64;
        }
        Ok(data)
    }

    /// Writes to a file (not to a stream) at its offset, or at `at` without moving it.
    pub fn write(&mut self, descriptor: u32, at: Option<u64>, bytes: &[u8]) -> Result<usize, Errno> {
        let open = self.get(descriptor)?.clone();
        if !open.writable {
            return Err(EBADF);
        }
        let Target::File(number) = open.target else { return Ok(bytes.len()) };
        let used = self.used_bytes();
        let node = self.nodes.get_mut(&number).ok_or(EBADF)?;
        let start = at.unwrap_or(if open.append { node.data.len() as u64 } else { open.offset });
        let end = start.checked_add(bytes.len() as u64).filter(|end| *end <= FILE_BYTES_MAX).ok_or(EFBIG)?;
        let grows = end.saturating_sub(node.data.len() as u64);
        if used + grows > FILE_BYTES_MAX {
            return Err(ENOSPC);
        }
        if grows > 0 {
            node.data.resize(end as usize, 0);
        }
        node.data[start as usize..end as usize].copy_from_slice(bytes);
        if at.is_none() {
            self.get_mut(descriptor)?.offset = end;
        }
        Ok(bytes.len())
    }

    /// `lseek(2)`.
    pub fn seek(&mut self, descriptor: u32, offset: i64, whence: i32) -> Result<u64, Errno> {
        let length = match self.get(descriptor)?.target {
            Target::File(node) => self.nodes.get(&node).ok_or(EBADF)?.data.len() as i64,
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
    pub fn truncate(&mut self, descriptor: u32, bytes: u64) -> Result<(), Errno> {
        let open = self.get(descriptor)?.clone();
        let Target::File(number) = open.target else { return Err(EINVAL) };
        if !open.writable {
            return Err(EINVAL);
        }
        let used = self.used_bytes();
        let node = self.nodes.get_mut(&number).ok_or(EBADF)?;
        if used - node.data.len() as u64 + bytes.min(FILE_BYTES_MAX + 1) > FILE_BYTES_MAX {
            return Err(EFBIG);
        }
        node.data.resize(bytes as usize, 0);
        Ok(())
    }

    /// `unlink(2)`.
    pub fn unlink(&mut self, path: &str) -> Result<(), Errno> {
        let path = normalise(path);
        let number = *self.names.get(&path).ok_or(ENOENT)?;
        if self.nodes.get(&number).is_some_and(|n| n.read_only) {
            return Err(EACCES);
        }
        self.names.remove(&path);
        self.collect(number);
        Ok(())
    }

    /// `rename(2)`.
    pub fn rename(&mut self, from: &str, to: &str) -> Result<(), Errno> {
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
            self.collect(replaced);
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
        Ok(Stat { mode, bytes: node.data.len() as u64, inode: number })
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

    #[test]
    fn a_written_file_reads_back_and_vanishes_with_its_last_descriptor() {
        let mut files = Files::new();
        let fd = files.open("out.txt", libc::O_RDWR | libc::O_CREAT).unwrap();
        assert_eq!(fd, 3);
        files.write(fd, None, b"hello").unwrap();
        files.write(fd, Some(8), b"!").unwrap();
        files.seek(fd, 0, libc::SEEK_SET).unwrap();
        files.unlink("/out.txt").unwrap();
        assert_eq!(files.read(fd, None, 100).unwrap(), b"hello\0\0\0!");
        files.close(fd).unwrap();
        assert!(files.nodes.is_empty());
    }

    #[test]
    fn read_only_files_cannot_be_changed_and_travel_apart() {
        let mut files = Files::new();
        files.add_read_only("/data/in", b"abc".to_vec());
        assert_eq!(files.open("/data/in", libc::O_RDWR), Err(EACCES));
        assert_eq!(files.unlink("/data/in"), Err(EACCES));
        assert_eq!(files.open("/data", libc::O_RDONLY), Err(EISDIR));
        let mut saved = files.clone();
        let content = saved.take_read_only();
        assert_ne!(saved, files);
        saved.join_read_only(content);
        assert_eq!(saved, files);
    }

    #[test]
    fn limits_hold() {
        let mut files = Files::new();
        let fd = files.open("big", libc::O_WRONLY | libc::O_CREAT).unwrap();
        assert_eq!(files.write(fd, Some(FILE_BYTES_MAX), b"x"), Err(EFBIG));
        assert_eq!(files.write(fd, Some(u64::MAX), b"x"), Err(EFBIG));
        while files.open("/dev/null", 0).is_ok() {}
        assert_eq!(files.descriptors.len(), DESCRIPTORS_MAX);
    }
}
