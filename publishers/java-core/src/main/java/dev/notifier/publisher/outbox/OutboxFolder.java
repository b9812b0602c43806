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
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The folder of one process: a numbered sub-folder of the configured folder, locked while the process lives.
 *
 * The suffix of a file is its state: `.part` is being written, `.pending` is complete and its sessions may live, `.json` is
 * ready to be published. The events are published in the identity server's name. Therefore a sub-folder is refused if it is a
 * link, belongs to another user, or is writable for all or for a group that this process is not in. The configured folder itself
 * may be writable for all.
 */
final class OutboxFolder implements AutoCloseable {
    private static final Logger LOG = LoggerFactory.getLogger("dev.notifier.publisher.outbox.OutboxFolder");
    static final String PENDING = ".pending";
    static final String READY = ".json";
    static final String PROBE_PREFIX = "trial-";
    private static final String PART = ".part";
    private static final Path LOCK = Path.of("lock");
    private static final int OTHERS_WRITE = 0002;
    private static final int GROUP_WRITES = 0020;
    private static final int MAX_FOLDERS = 1_000;
    private static final FileAttribute<Set<PosixFilePermission>> PRIVATE_FOLDER = PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rwx------"));
    private static final FileAttribute<Set<PosixFilePermission>> PRIVATE_FILE = PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rw-------"));

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
     * Claims the first sub-folder that no living process has claimed. Untrusted ones are logged and skipped.
     *
     * @throws IOException if no sub-folder can be used
     */
    static OutboxFolder claim(Path base) throws IOException {
        if (!Files.isDirectory(base)) {
            Files.createDirectories(base, PRIVATE_FOLDER);
        }
        for (int number = 0; number < MAX_FOLDERS; number++) {
            Path place = base.resolve(String.valueOf(number));
            try {
                Files.createDirectory(place, PRIVATE_FOLDER);
            } catch (FileAlreadyExistsException exists) {
                // an ended or a living process has created it
            }
            try {
                OutboxFolder claimed = tryClaim(place);
                if (claimed != null) {
                    claimed.sync();
                    return claimed;
                }
            } catch (UntrustedPathException | AccessDeniedException | NoSuchFileException refused) {
                LOG.error("notifier: a folder of the outbox is skipped: {}", refused.toString());
            }
        }
        throw new IOException("all " + MAX_FOLDERS + " folders below " + base + " are in use or untrusted");
    }

    /** Claims the folders of ended processes. The caller closes them. A folder that cannot be taken over is logged and skipped. */
    List<OutboxFolder> claimOrphans() throws IOException {
        List<OutboxFolder> orphans = new ArrayList<>();
        try (Stream<Path> places = Files.list(folder.getParent())) {
            for (Path place : places.filter(each -> each.getFileName().toString().matches("\\d+") && !each.equals(folder)).toList()) {
                try {
                    OutboxFolder claimed = tryClaim(place);
                    if (claimed != null) {
                        orphans.add(claimed);
                    }
                } catch (IOException failure) { // logged once a minute, with each attempt
                    LOG.error("notifier: a folder of the outbox is not taken over: {}", failure.toString());
                }
            }
        }
        return orphans;
    }

    /** Refuses a folder that others may have written to. Returns its file key, which another folder of the same name does not have. */
    private static Object requireTrustedFolder(Path place) throws IOException {
        Map<String, Object> attributes = Files.readAttributes(place, "unix:uid,gid,mode,fileKey,isDirectory,isSymbolicLink", LinkOption.NOFOLLOW_LINKS);
        if (attributes.get("isSymbolicLink").equals(true)) {
            throw new UntrustedPathException(place, "it is a link, but must be a real folder: remove the link");
        }
        if (attributes.get("isDirectory").equals(false)) {
            throw new UntrustedPathException(place, "it is not a folder: remove it");
        }
        ProcessIdentity process = ProcessIdentity.read();
        if (!process.isUser(attributes.get("uid"))) {
            throw new UntrustedPathException(place, "it belongs to another user (" + attributes.get("uid") + "): if a process of that user uses it,"
                    + " give that process another outbox folder; otherwise inspect its events, then chown it, or move it away");
        }
        int mode = (int) attributes.get("mode");
        if ((mode & OTHERS_WRITE) != 0 || (mode & GROUP_WRITES) != 0 && !process.groups().contains(attributes.get("gid"))) {
            throw new UntrustedPathException(place, "others may write to it (mode " + Integer.toOctalString(mode & 07777)
                    + ", group " + attributes.get("gid") + "), and its events may be theirs: inspect them, then chmod 700 it, or move it away");
        }
        return attributes.get("fileKey");
    }

    /** Opens a trusted folder. Refuses another folder that has replaced it since the check. */
    private static SecureDirectoryStream<Path> openTrusted(Path place) throws IOException {
        Object fileKey = requireTrustedFolder(place);
        try (DirectoryStream<Path> parent = Files.newDirectoryStream(place.getParent())) {
            SecureDirectoryStream<Path> opened = openChild((SecureDirectoryStream<Path>) parent, place);
            if (opened.getFileAttributeView(BasicFileAttributeView.class).readAttributes().fileKey().equals(fileKey)) {
                return opened;
            }
            opened.close();
            throw new UntrustedPathException(place, "another folder has taken its name");
        }
    }

    private static SecureDirectoryStream<Path> openChild(SecureDirectoryStream<Path> parent, Path place) throws IOException {
        try {
            return parent.newDirectoryStream(place.getFileName(), LinkOption.NOFOLLOW_LINKS);
        } catch (FileSystemException failure) { // such as a link that has replaced it since the check
            throw new UntrustedPathException(place, "it cannot be opened: " + failure.getReason());
        }
    }

    /** A folder or file is a link, belongs to another user, or is writable for others. */
    static final class UntrustedPathException extends FileSystemException {
        private static final long serialVersionUID = 1;

        UntrustedPathException(Path path, String why) {
            super(path.toString(), null, why);
        }
    }

    /**
     * Returns the file if it is a regular file of this user or root. Opening a FIFO would block, and a device might never end.
     *
     * @throws UntrustedPathException if it is not
     * @throws NoSuchFileException if it does not exist
     */
    static Path requireTrusted(Path file) throws IOException {
        if (!Files.isRegularFile(file, LinkOption.NOFOLLOW_LINKS) && Files.exists(file, LinkOption.NOFOLLOW_LINKS)) {
            throw new UntrustedPathException(file, "it is not a regular file: remove it");
        }
        Object owner = Files.getAttribute(file, "unix:uid", LinkOption.NOFOLLOW_LINKS);
        if (!owner.equals(0) && !ProcessIdentity.read().isUser(owner)) {
            throw new UntrustedPathException(file, "it belongs to another user (" + owner + "): inspect it, then chown it, or remove it");
        }
        return file;
    }

    /** The effective user and the groups of this process, such as a pod's `fsGroup`. Without /proc, each user is accepted, and no group. */
    private record ProcessIdentity(Set<Object> users, Set<Object> groups) {
        private static final Path STATUS = Path.of("/proc/self/status");

        static ProcessIdentity read() throws IOException {
            if (!Files.isReadable(STATUS)) {
                return new ProcessIdentity(Set.of(), Set.of());
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
            return new ProcessIdentity(users, groups);
        }

        boolean isUser(Object user) {
            return users.isEmpty() || users.contains(user);
        }
    }

    /** Returns null if a living process has claimed the folder. */
    private static OutboxFolder tryClaim(Path place) throws IOException {
        SecureDirectoryStream<Path> inside = openTrusted(place);
        FileChannel file = null;
        FileLock lock = null;
        try {
            requireTrustedLock(inside, place);
            file = (FileChannel) inside.newByteChannel(LOCK, Set.of(StandardOpenOption.CREATE, StandardOpenOption.WRITE, LinkOption.NOFOLLOW_LINKS), PRIVATE_FILE);
            lock = file.tryLock();
        } catch (OverlappingFileLockException claimed) {
            // this process has claimed it
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

    /** Refuses a lock file of another user, who could hold the lock forever. */
    private static void requireTrustedLock(SecureDirectoryStream<Path> inside, Path place) throws IOException {
        try {
            PosixFileAttributes attributes = inside.getFileAttributeView(LOCK, PosixFileAttributeView.class, LinkOption.NOFOLLOW_LINKS).readAttributes();
            boolean foreign = !attributes.owner().equals(inside.getFileAttributeView(PosixFileAttributeView.class).readAttributes().owner());
            if (foreign || !attributes.isRegularFile()) {
                throw new UntrustedPathException(place.resolve(LOCK), (foreign ? "it belongs to another user" : "it is not a regular file") + ": remove it");
            }
        } catch (NoSuchFileException absent) {
            // it will be created
        }
    }

    /** Writes events durably to a file with this suffix. */
    Path write(String name, String suffix, Collection<OutgoingEvent> events) throws IOException {
        Path part = folder.resolve(name + PART);
        FileChannel created = FileChannel.open(part, Set.of(StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE), PRIVATE_FILE);
        try (FileChannel file = created) {
            ByteArrayOutputStream lines = new ByteArrayOutputStream();
            for (OutgoingEvent each : events) {
                lines.writeBytes(each.toLine());
            }
            ByteBuffer content = ByteBuffer.wrap(lines.toByteArray());
            while (content.hasRemaining()) {
                file.write(content);
            }
            file.force(true);
        } catch (IOException failure) {
            Files.deleteIfExists(part);
            throw failure;
        }
        Path complete = Files.move(part, folder.resolve(name + suffix), StandardCopyOption.ATOMIC_MOVE);
        sync();
        return complete;
    }

    /** Gives a file another suffix. Returns its new path. */
    Path rename(Path file, String name, String suffix) throws IOException {
        return Files.move(file, folder.resolve(name + suffix), StandardCopyOption.ATOMIC_MOVE);
    }

    /** Moves a file of this folder into another. Returns its new path. */
    Path move(Path file, OutboxFolder to, String name) throws IOException {
        inside.move(file.getFileName(), to.inside, Path.of(name));
        return to.folder.resolve(name);
    }

    /** Returns the pending and ready files in the order of their names, which start with their time. Removes incomplete files. */
    List<Path> listWaiting() throws IOException {
        List<Path> waiting = new ArrayList<>();
        try (DirectoryStream<Path> files = inside.newDirectoryStream(Path.of("."), LinkOption.NOFOLLOW_LINKS)) {
            for (Path file : files) {
                String name = file.getFileName().toString();
                if (name.endsWith(PART) || name.startsWith(PROBE_PREFIX)) {
                    inside.deleteFile(file.getFileName());
                } else if (name.endsWith(PENDING) || name.endsWith(READY)) {
                    waiting.add(folder.resolve(name));
                }
            }
        }
        waiting.sort(null);
        return waiting;
    }

    /** Returns whether a file that could not be read was removed. If its folder is missing too, such as an unmounted volume, the file may return. */
    static boolean isRemoved(Path file, IOException failure) {
        return failure instanceof NoSuchFileException && Files.isDirectory(file.getParent());
    }

    /** Returns the size in bytes of a file, or of a link itself. */
    static long size(Path file) throws IOException {
        return Files.readAttributes(file, BasicFileAttributes.class, LinkOption.NOFOLLOW_LINKS).size();
    }

    static void remove(Path file) throws IOException {
        Files.deleteIfExists(file);
    }

    /** Makes created, renamed and removed files durable. */
    void sync() throws IOException {
        try (FileChannel opened = FileChannel.open(folder, StandardOpenOption.READ)) {
            opened.force(true);
        }
    }

    Path path() {
        return folder;
    }

    /** Releases the folder, so that another process can claim it. */
    @Override
    public void close() throws IOException {
        lock.release();
        lockFile.close();
        inside.close();
    }
}
