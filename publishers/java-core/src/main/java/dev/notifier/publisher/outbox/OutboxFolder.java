package dev.notifier.publisher.outbox;

import dev.notifier.publisher.event.OutgoingEvent;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.channels.OverlappingFileLockException;
import java.nio.charset.StandardCharsets;
import java.nio.file.AccessDeniedException;
import java.nio.file.DirectoryStream;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.SecureDirectoryStream;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.BasicFileAttributeView;
import java.nio.file.attribute.BasicFileAttributes;
import java.nio.file.attribute.FileAttribute;
import java.nio.file.attribute.PosixFileAttributeView;
import java.nio.file.attribute.PosixFileAttributes;
import java.nio.file.attribute.PosixFilePermission;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Stream;
import org.jboss.logging.Logger;

/**
 * The folder of one process, below the setting's: numbered, and locked while its process lives.
 *
 * `.part` is being written; `.pending` is on disk, and its session may live; `.json` waits to be published. Its files
 * are published in Keycloak's name: a folder of another user, a folder writable for groups other than this process's, or a
 * link, is refused. The setting's folder itself may be open.
 */
final class OutboxFolder implements AutoCloseable {
    private static final Logger LOG = Logger.getLogger(OutboxFolder.class);
    static final String PENDING = ".pending";
    static final String READY = ".json";
    static final String TRIAL = "trial-";
    private static final String PART = ".part";
    private static final Path LOCK = Path.of("lock");
    private static final int OTHERS_WRITE = 0002;
    private static final int GROUP_WRITES = 0020;
    private static final int MOST_FOLDERS = 1_000;
    private static final FileAttribute<Set<PosixFilePermission>> OURS_ALONE = PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rwx------"));
    private static final FileAttribute<Set<PosixFilePermission>> OUR_FILE = PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rw-------"));

    private final Path folder;
    private final SecureDirectoryStream<Path> inside;
    private final FileChannel lockFile;
    private final FileLock lock;

    private OutboxFolder(Path folder, SecureDirectoryStream<Path> inside, FileChannel lockFile, FileLock lock) {
        this.folder = folder;
        this.inside = inside;
        this.lockFile = lockFile;
        this.lock = lock;
    }

    /**
     * Claim the first folder that is ours alone and that no living process has. One that is not is logged and left.
     *
     * @throws IOException if none can be used
     */
    static OutboxFolder claim(Path base) throws IOException {
        if (!Files.isDirectory(base)) {
            Files.createDirectories(base, OURS_ALONE);
        }
        for (int number = 0; number < MOST_FOLDERS; number++) {
            Path place = base.resolve(String.valueOf(number));
            try {
                Files.createDirectory(place, OURS_ALONE);
            } catch (FileAlreadyExistsException there) {
                // of an earlier process, or of a living one
            }
            try {
                OutboxFolder claimed = tryClaim(place);
                if (claimed != null) {
                    claimed.sync();
                    return claimed;
                }
            } catch (UntrustedFileException | AccessDeniedException refused) {
                LOG.errorf("notifier: a folder of the outbox is not used, but the next: %s", refused);
            }
        }
        throw new IOException("all " + MOST_FOLDERS + " folders below " + base + " are in use, or not ours");
    }

    /** The folders of dead processes, each locked. The caller closes them. A folder that cannot be taken over is logged and skipped. */
    List<OutboxFolder> orphans() throws IOException {
        List<OutboxFolder> found = new ArrayList<>();
        try (Stream<Path> places = Files.list(folder.getParent())) {
            for (Path place : places.filter(each -> each.getFileName().toString().matches("\\d+") && !each.equals(folder)).toList()) {
                try {
                    OutboxFolder claimed = tryClaim(place);
                    if (claimed != null) {
                        found.add(claimed);
                    }
                } catch (IOException failed) { // once a minute, as the worker looks
                    LOG.errorf("notifier: what a process left is not taken over: %s", failed);
                }
            }
        }
        return found;
    }

    /** Refuse a folder that others may have written to. Returns its identity, which a replacement of the same name does not have. */
    private static Object refuseOpen(Path place) throws IOException {
        Map<String, Object> seen = Files.readAttributes(place, "unix:uid,gid,mode,fileKey,isDirectory,isSymbolicLink", LinkOption.NOFOLLOW_LINKS);
        if (seen.get("isSymbolicLink").equals(true)) {
            throw new UntrustedFileException(place, "it is a link, but must be a real folder: remove the link");
        }
        if (seen.get("isDirectory").equals(false)) {
            throw new UntrustedFileException(place, "it is not a folder: remove it");
        }
        Process us = Process.read();
        if (!us.isUser(seen.get("uid"))) {
            throw new UntrustedFileException(place, "it belongs to another user (" + seen.get("uid") + "), who may have put its events there:"
                    + " look through them, then chown it, or move it away");
        }
        int mode = (int) seen.get("mode");
        if ((mode & OTHERS_WRITE) != 0 || (mode & GROUP_WRITES) != 0 && !us.groups().contains(seen.get("gid"))) {
            throw new UntrustedFileException(place, "others may write to it (mode " + Integer.toOctalString(mode & 07777)
                    + ", group " + seen.get("gid") + "), so anybody may have put its events there: look through them, then chmod 700 it, or move it away");
        }
        return seen.get("fileKey");
    }

    /** The folder that was judged, open: what takes its name meanwhile is not looked at. */
    private static SecureDirectoryStream<Path> opened(Path place) throws IOException {
        Object judged = refuseOpen(place);
        try (DirectoryStream<Path> above = Files.newDirectoryStream(place.getParent())) {
            SecureDirectoryStream<Path> found = ((SecureDirectoryStream<Path>) above).newDirectoryStream(place.getFileName(), LinkOption.NOFOLLOW_LINKS);
            if (found.getFileAttributeView(BasicFileAttributeView.class).readAttributes().fileKey().equals(judged)) {
                return found;
            }
            found.close();
            throw new UntrustedFileException(place, "another folder has taken its name");
        }
    }

    /** A folder or file that is a link, of another user, or open to others. */
    static final class UntrustedFileException extends FileSystemException {
        private static final long serialVersionUID = 1;

        UntrustedFileException(Path path, String why) {
            super(path.toString(), null, why);
        }
    }

    /**
     * Refuse all but regular files of this user or root. Opening a FIFO would block, and a device might never end.
     *
     * @throws NotOurs if it is not
     */
    static Path requireOurs(Path file) throws IOException {
        if (!Files.isRegularFile(file, LinkOption.NOFOLLOW_LINKS) && Files.exists(file, LinkOption.NOFOLLOW_LINKS)) {
            throw new UntrustedFileException(file, "it is not a regular file: remove it");
        }
        Object owner = Files.getAttribute(file, "unix:uid", LinkOption.NOFOLLOW_LINKS);
        if (!owner.equals(0) && !Process.read().isUser(owner)) {
            throw new UntrustedFileException(file, "it belongs to another user (" + owner + "): look into it, then chown it, or remove it");
        }
        return file;
    }

    /** The user and the groups that this process runs as, such as a pod's `fsGroup`. If the kernel does not report them, any user and no group. */
    private record Process(Set<Object> users, Set<Object> groups) {
        private static final Path STATUS = Path.of("/proc/self/status");

        static Process read() throws IOException {
            if (!Files.isReadable(STATUS)) {
                return new Process(Set.of(), Set.of());
            }
            Set<Object> users = new HashSet<>();
            Set<Object> groups = new HashSet<>();
            for (String line : Files.readAllLines(STATUS, StandardCharsets.ISO_8859_1)) {
                String[] words = line.split("\\s+");
                switch (words[0]) {
                    case "Uid:" -> users.add(Integer.parseUnsignedInt(words[2])); // real, effective, saved, of the file system
                    case "Gid:" -> groups.add(Integer.parseUnsignedInt(words[2]));
                    case "Groups:" -> Arrays.stream(words).skip(1).map(Integer::parseUnsignedInt).forEach(groups::add);
                    default -> { }
                }
            }
            return new Process(users, groups);
        }

        boolean isUser(Object user) {
            return users.isEmpty() || users.contains(user);
        }
    }

    /** Null if a living process has it. */
    private static OutboxFolder tryClaim(Path place) throws IOException {
        SecureDirectoryStream<Path> inside = opened(place);
        FileChannel file = null;
        FileLock lock = null;
        try {
            requireOurLock(inside, place);
            file = (FileChannel) inside.newByteChannel(LOCK, Set.of(StandardOpenOption.CREATE, StandardOpenOption.WRITE, LinkOption.NOFOLLOW_LINKS), OUR_FILE);
            lock = file.tryLock();
        } catch (OverlappingFileLockException ours) {
            // this process has it
        } finally {
            if (lock == null) {
                inside.close();
                if (file != null) {
                    file.close();
                }
            }
        }
        return lock == null ? null : new OutboxFolder(place, inside, file, lock);
    }

    /** Refuse a lock file of another user, who could hold the lock forever. */
    private static void requireOurLock(SecureDirectoryStream<Path> inside, Path place) throws IOException {
        try {
            PosixFileAttributes seen = inside.getFileAttributeView(LOCK, PosixFileAttributeView.class, LinkOption.NOFOLLOW_LINKS).readAttributes();
            boolean foreign = !seen.owner().equals(inside.getFileAttributeView(PosixFileAttributeView.class).readAttributes().owner());
            if (foreign || !seen.isRegularFile()) {
                throw new UntrustedFileException(place.resolve(LOCK), (foreign ? "it belongs to another user" : "it is not a regular file") + ": remove it");
            }
        } catch (NoSuchFileException none) {
            // it is made
        }
    }

    /** Write endings, durably, to a file of this ending. */
    Path write(String name, String ending, Collection<OutgoingEvent> events) throws IOException {
        Path part = folder.resolve(name + PART);
        try (FileChannel file = FileChannel.open(part, Set.of(StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE), OUR_FILE)) {
            ByteArrayOutputStream lines = new ByteArrayOutputStream();
            for (OutgoingEvent each : events) {
                lines.writeBytes(each.line());
            }
            ByteBuffer whole = ByteBuffer.wrap(lines.toByteArray());
            while (whole.hasRemaining()) {
                file.write(whole);
            }
            file.force(true);
        } catch (IOException failed) {
            Files.deleteIfExists(part);
            throw failed;
        }
        Path whole = Files.move(part, folder.resolve(name + ending), StandardCopyOption.ATOMIC_MOVE);
        sync();
        return whole;
    }

    /** The same file, with another ending. */
    Path renamed(Path file, String name, String ending) throws IOException {
        return Files.move(file, folder.resolve(name + ending), StandardCopyOption.ATOMIC_MOVE);
    }

    /** Move a file of this folder into another. */
    Path moved(Path file, OutboxFolder to, String name) throws IOException {
        inside.move(file.getFileName(), to.inside, Path.of(name));
        return to.folder.resolve(name);
    }

    /** The files that wait, oldest first; what a dead process was still writing is removed. */
    List<Path> left() throws IOException {
        List<Path> found = new ArrayList<>();
        try (DirectoryStream<Path> files = inside.newDirectoryStream(Path.of("."), LinkOption.NOFOLLOW_LINKS)) {
            for (Path file : files) {
                String name = file.getFileName().toString();
                if (name.endsWith(PART) || name.startsWith(TRIAL)) {
                    inside.deleteFile(file.getFileName());
                } else if (name.endsWith(PENDING) || name.endsWith(READY)) {
                    found.add(folder.resolve(name));
                }
            }
        }
        found.sort(null);
        return found;
    }

    /** The size of a file in bytes, or of the link that it is. */
    static long size(Path file) throws IOException {
        return Files.readAttributes(file, BasicFileAttributes.class, LinkOption.NOFOLLOW_LINKS).size();
    }

    static void remove(Path file) throws IOException {
        try {
            Files.delete(file);
        } catch (NoSuchFileException gone) {
            // deleted already
        }
    }

    /** Make names durable. */
    void sync() throws IOException {
        try (FileChannel opened = FileChannel.open(folder, StandardOpenOption.READ)) {
            opened.force(true);
        }
    }

    Path path() {
        return folder;
    }

    /** Give the folder up. */
    @Override
    public void close() throws IOException {
        lock.release();
        lockFile.close();
        inside.close();
    }
}
