package dev.notifier.keycloak.outbox;

import dev.notifier.keycloak.event.Ending;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.channels.OverlappingFileLockException;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.FileAttribute;
import java.nio.file.attribute.PosixFileAttributes;
import java.nio.file.attribute.PosixFilePermission;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.stream.Stream;
import org.jboss.logging.Logger;

/**
 * The folder of one process, below the setting's: numbered, and locked while its process lives.
 *
 * `.part` is being written; `.pending` is on disk, and its session may live; `.json` waits to be published. What is in it is
 * published in Keycloak's name: one of another user, one that others than our own groups may write to, or a link, is
 * refused. The setting's folder itself may be open.
 */
final class OutboxFolder implements AutoCloseable {
    private static final Logger LOG = Logger.getLogger(OutboxFolder.class);
    static final String PENDING = ".pending";
    static final String READY = ".json";
    static final String TRIAL = "trial-";
    private static final String PART = ".part";
    private static final String LOCK = "lock";
    private static final int MOST_FOLDERS = 1_000;
    private static final FileAttribute<Set<PosixFilePermission>> OURS_ALONE = PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rwx------"));
    private static final FileAttribute<Set<PosixFilePermission>> OUR_FILE = PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rw-------"));

    private final Path folder;
    private final FileChannel lockFile;
    private final FileLock lock;

    private OutboxFolder(Path folder, FileChannel lockFile, FileLock lock) {
        this.folder = folder;
        this.lockFile = lockFile;
        this.lock = lock;
    }

    /**
     * The first folder that no living process has.
     *
     * @throws IOException if it cannot be used, or others may write to it
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
                // of an earlier process, or of one that lives
            }
            refuseOpen(place);
            OutboxFolder claimed = tryClaim(place);
            if (claimed != null) {
                claimed.sync();
                return claimed;
            }
        }
        throw new IOException("all " + MOST_FOLDERS + " folders below " + base + " are in use");
    }

    /** Those that dead processes have left, each locked. The caller closes them. One that cannot be taken over is told and left. */
    List<OutboxFolder> orphans() throws IOException {
        List<OutboxFolder> found = new ArrayList<>();
        try (Stream<Path> places = Files.list(folder.getParent())) {
            for (Path place : places.filter(each -> each.getFileName().toString().matches("\\d+") && !each.equals(folder)).toList()) {
                try {
                    OutboxFolder claimed = tryTakeOver(place);
                    if (claimed != null) {
                        found.add(claimed);
                    }
                } catch (IOException failed) { // once a minute, as the keeper looks
                    LOG.errorf("notifier: what a process left is not taken over: %s", failed);
                }
            }
        }
        return found;
    }

    private static OutboxFolder tryTakeOver(Path place) throws IOException {
        if (isEmpty(place)) {
            return null;
        }
        refuseOpen(place);
        return tryClaim(place);
    }

    private static void refuseOpen(Path place) throws IOException {
        PosixFileAttributes seen = Files.readAttributes(place, PosixFileAttributes.class, LinkOption.NOFOLLOW_LINKS);
        if (seen.isSymbolicLink()) {
            throw new FileSystemException(place.toString(), null, "it is a link, and events wait in folders of their own: remove the link");
        }
        Set<PosixFilePermission> open = seen.permissions();
        Process us = Process.read();
        Object owner = Files.getAttribute(place, "unix:uid", LinkOption.NOFOLLOW_LINKS);
        if (!us.isUser(owner)) {
            throw new FileSystemException(place.toString(), null, "it belongs to another user (" + owner + "), who may have put its events there:"
                    + " look through them, then chown it, or move it away");
        }
        boolean groupIsOurs = us.groups().contains(Files.getAttribute(place, "unix:gid", LinkOption.NOFOLLOW_LINKS));
        if (open.contains(PosixFilePermission.OTHERS_WRITE) || open.contains(PosixFilePermission.GROUP_WRITE) && !groupIsOurs) {
            throw new FileSystemException(place.toString(), null, "others may write to it (" + PosixFilePermissions.toString(open)
                    + ", group " + seen.group().getName() + "), so anybody may have put its events there: look through them, then chmod 700 it, or move it away");
        }
    }

    /** The user and the groups that this process runs as, such as a pod's `fsGroup`. Where the kernel does not say, any user and no group. */
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

    private static boolean isEmpty(Path place) throws IOException {
        try (Stream<Path> files = Files.list(place)) {
            return files.noneMatch(each -> each.toString().endsWith(PART) || each.toString().endsWith(PENDING) || each.toString().endsWith(READY));
        }
    }

    private static OutboxFolder tryClaim(Path place) throws IOException {
        FileChannel file = FileChannel.open(place.resolve(LOCK), Set.of(StandardOpenOption.CREATE, StandardOpenOption.WRITE), OUR_FILE);
        try {
            FileLock lock = file.tryLock();
            if (lock != null) {
                return new OutboxFolder(place, file, lock);
            }
        } catch (OverlappingFileLockException ours) {
            // this process has it
        }
        file.close();
        return null;
    }

    /** Write endings, durably, to a file of this ending. */
    Path write(String name, String ending, Collection<Ending> endings) throws IOException {
        Path part = folder.resolve(name + PART);
        try (FileChannel file = FileChannel.open(part, Set.of(StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE), OUR_FILE)) {
            ByteArrayOutputStream lines = new ByteArrayOutputStream();
            for (Ending each : endings) {
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

    /** The same file, with another ending, perhaps from another folder into this one. */
    Path renamed(Path file, String name, String ending) throws IOException {
        return Files.move(file, folder.resolve(name + ending), StandardCopyOption.ATOMIC_MOVE);
    }

    /** The files that wait, oldest first; what a dead process was still writing is removed. */
    List<Path> left() throws IOException {
        List<Path> found = new ArrayList<>();
        try (Stream<Path> files = Files.list(folder)) {
            for (Path file : files.sorted().toList()) {
                String name = file.getFileName().toString();
                if (name.endsWith(PART) || name.startsWith(TRIAL)) {
                    Files.deleteIfExists(file);
                } else if (name.endsWith(PENDING) || name.endsWith(READY)) {
                    found.add(file);
                }
            }
        }
        return found;
    }

    static void remove(Path file) throws IOException {
        try {
            Files.delete(file);
        } catch (NoSuchFileException gone) {
            // that is what was wanted
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
    }
}
