/* What the kernel lets a process do: each check prints one line, `name=OK` or `name=ERRNO` or `name=SIGNAL`.
 *
 * Built once by support.rs (gcc -static) and run inside the sandbox by the tests, and outside it as a small launcher
 * (`leak`, `without`, `pty`). Every call is made with arguments that do no harm where it is let through. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/seccomp.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <pty.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mount.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static void say(const char *name, long result) {
    if (result < 0)
        printf("%s=%s\n", name, strerrorname_np(errno) ? strerrorname_np(errno) : "E?");
    else
        printf("%s=OK\n", name);
    fflush(stdout);
}

/* Run in a child, so that a signal is an answer too; the child's exit code is an errno. */
static void tried(const char *name, long (*call)(void *), void *arg) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0) {
        say(name, -1);
        return;
    }
    if (pid == 0) {
        alarm(5);
        errno = 0;
        long r = call(arg);
        _exit(r < 0 ? errno : 0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    if (WIFSIGNALED(status))
        printf("%s=SIG%s\n", name, sigabbrev_np(WTERMSIG(status)));
    else if (WEXITSTATUS(status))
        printf("%s=%s\n", name, strerrorname_np(WEXITSTATUS(status)) ? strerrorname_np(WEXITSTATUS(status)) : "E?");
    else
        printf("%s=OK\n", name);
    fflush(stdout);
}

struct door {
    const char *name;
    long nr, a, b, c, d, e;
};

static long enter(void *arg) {
    struct door *d = arg;
    return syscall(d->nr, d->a, d->b, d->c, d->d, d->e, 0L);
}

/* Bad addresses and descriptors: what passes the filter ends in EFAULT, EBADF or EINVAL. */
#define BAD (-1L)
static struct door doors[] = {
    {"fsopen", 430, BAD, 0}, {"fsconfig", 431, BAD, 99}, {"fsmount", 432, BAD, 0}, {"fspick", 433, BAD, 0, 0},
    {"open_tree", 428, BAD, 0, 0}, {"move_mount", 429, BAD, 0, BAD, 0, 0}, {"mount_setattr", 442, BAD, 0, 0, 0, 0},
    {"open_tree_attr", 467, BAD, 0, 0, 0, 0},
    {"mount", SYS_mount, 0, 0, 0, 0, 0}, {"umount2", SYS_umount2, 0, 0}, {"pivot_root", SYS_pivot_root, 0, 0},
    {"unshare_user", SYS_unshare, CLONE_NEWUSER}, {"unshare_ns", SYS_unshare, CLONE_NEWNS}, {"unshare_net", SYS_unshare, CLONE_NEWNET},
    {"unshare_pid", SYS_unshare, CLONE_NEWPID}, {"unshare_ipc", SYS_unshare, CLONE_NEWIPC}, {"unshare_uts", SYS_unshare, CLONE_NEWUTS},
    {"unshare_cgroup", SYS_unshare, 0x02000000}, {"unshare_time", SYS_unshare, 0x80}, {"setns", SYS_setns, BAD, 0},
    {"clone3", 435, 0, 0},
    {"bpf", SYS_bpf, 0, 0, 0}, {"perf_event_open", SYS_perf_event_open, 0, 0, BAD, BAD, 0},
    {"io_uring_setup", 425, 1, 0}, {"io_uring_enter", 426, BAD, 0, 0, 0}, {"io_uring_register", 427, BAD, 0, 0, 0},
    {"userfaultfd", SYS_userfaultfd, 0}, {"vmsplice", SYS_vmsplice, BAD, 0, 0, 0},
    {"add_key", SYS_add_key, 0, 0, 0, 0, 0}, {"request_key", SYS_request_key, 0, 0, 0, 0}, {"keyctl", SYS_keyctl, 0, -3L, 0},
    {"kexec_load", SYS_kexec_load, 0, 0, 0, 0}, {"kexec_file_load", SYS_kexec_file_load, BAD, BAD, 0, 0, 0},
    {"init_module", SYS_init_module, 0, 0, 0}, {"finit_module", SYS_finit_module, BAD, 0, 0}, {"delete_module", SYS_delete_module, 0, 0},
    {"quotactl", SYS_quotactl, 0, 0, 0, 0}, {"fanotify_init", SYS_fanotify_init, 0, 0}, {"lookup_dcookie", SYS_lookup_dcookie, 0, 0, 0},
    {"name_to_handle_at", SYS_name_to_handle_at, BAD, 0, 0, 0, 0}, {"open_by_handle_at", SYS_open_by_handle_at, BAD, 0, 0},
    {"kcmp", SYS_kcmp, 0, 0, 0, 0, 0}, {"modify_ldt", SYS_modify_ldt, 99, 0, 0}, {"ioperm", SYS_ioperm, 0, 0, 0}, {"iopl", SYS_iopl, 3},
    {"uselib", SYS_uselib, 0}, {"ustat", SYS_ustat, 0, 0}, {"sysfs", SYS_sysfs, 9, 0}, {"acct", SYS_acct, 8},
    {"swapon", SYS_swapon, 0, 0}, {"swapoff", SYS_swapoff, 0}, {"reboot", SYS_reboot, 0, 0, 0, 0},
    {"settimeofday", SYS_settimeofday, 8, 0}, {"clock_settime", SYS_clock_settime, 0, 8}, {"vhangup", SYS_vhangup},
    {"syslog", SYS_syslog, 10, 0, 0}, {"nfsservctl", SYS_nfsservctl, 0, 0, 0}, {"lsm_set_self_attr", 460, 0, 0, 0, 0},
    {"sethostname", SYS_sethostname, 8, 1}, {"setdomainname", SYS_setdomainname, 8, 1},
    {"mbind", SYS_mbind, 0, 0, 99, 0, 0}, {"migrate_pages", SYS_migrate_pages, BAD, 0, 0, 0}, {"move_pages", SYS_move_pages, BAD, 0, 0, 0, 0},
    {"personality_read_implies_exec", SYS_personality, 0x0400000},
    {"ioctl_tiocsti", SYS_ioctl, BAD, 0x5412, 0}, {"ioctl_tiocsti_high", SYS_ioctl, BAD, (long)0xdeadbeef00005412UL, 0},
    {"ioctl_tioclinux", SYS_ioctl, BAD, 0x541c, 0}, {"ioctl_tioclinux_high", SYS_ioctl, BAD, (long)0x1000000000005400UL | 0x1c, 0},
    {"ioctl_tiocsetd", SYS_ioctl, BAD, 0x5423, 0}, {"ioctl_tioccons", SYS_ioctl, BAD, 0x541d, 0},
    {"clone_newuser", SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0}, {"clone_newns", SYS_clone, CLONE_NEWNS | SIGCHLD, 0, 0, 0, 0},
    {"clone_newnet", SYS_clone, CLONE_NEWNET | SIGCHLD, 0, 0, 0, 0}, {"clone_newuser_high", SYS_clone, (long)0xf00000000UL | CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0},
    /* D allows these; S does not. */
    {"ptrace", SYS_ptrace, 99, BAD, 0, 0}, {"process_vm_readv", SYS_process_vm_readv, BAD, 0, 0, 0, 0},
    {"process_vm_writev", SYS_process_vm_writev, BAD, 0, 0, 0, 0}, {"pidfd_getfd", 438, BAD, 0, 0}, {"process_madvise", 440, BAD, 0, 0, 0, 0},
    /* Everybody needs these. */
    {"getpid", SYS_getpid}, {"openat", SYS_openat, BAD, 0, 0}, {"chown", SYS_chown, 0, 0, 0}, {"futex", SYS_futex, 0, 99, 0, 0},
    {"epoll_create1", SYS_epoll_create1, 0}, {"memfd_create", SYS_memfd_create, 0, 0}, {"openat2", 437, BAD, 0, 0, 0},
    {"landlock_create_ruleset", 444, 0, 0, 1}, {"rseq", 334, 0, 0, 0, 0}, {"statx", 332, BAD, 0, 0, 0, 0},
};

/* Some of these would do harm to the host: only inside a user namespace. */
static int outside(void) {
    char map[64] = "";
    int fd = open("/proc/self/uid_map", O_RDONLY);
    ssize_t n = read(fd, map, sizeof map - 1);
    close(fd);
    if (n <= 0 || strstr(map, "4294967295"))
        return fprintf(stderr, "probe: not here\n"), 1;
    return 0;
}

static int cmd_doors(void) {
    if (outside())
        return 99;
    for (size_t i = 0; i < sizeof doors / sizeof *doors; i++)
        tried(doors[i].name, enter, &doors[i]);
    return 0;
}

/* Numbers that no kernel had when this was written, and what libc never uses. */
static int cmd_sweep(int from, int to) {
    for (int nr = from; nr <= to; nr++) {
        char name[16];
        struct door d = {name, nr, BAD, BAD, BAD, BAD, BAD};
        snprintf(name, sizeof name, "%d", nr);
        tried(name, enter, &d);
    }
    return 0;
}

#if defined(__x86_64__)
struct old {
    const char *name;
    long nr, a, b, c;
};

static long int80(void *arg) {
    struct old *o = arg;
    long r;
    __asm__ volatile("int $0x80" : "=a"(r) : "a"(o->nr), "b"(o->a), "c"(o->b), "d"(o->c) : "memory", "r8", "r9", "r10", "r11");
    if (r < 0 && r > -4096) {
        errno = (int)-r;
        return -1;
    }
    return r;
}

static long x32(void *arg) {
    struct old *o = arg;
    return syscall(o->nr | 0x40000000L, o->a, o->b, o->c);
}

static int cmd_abi(void) {
    struct old i386[] = {{"i386_getpid", 20, 0, 0, 0},  {"i386_socket", 359, 38, 5, 0},    {"i386_socketcall", 102, 1, 0, 0}, {"i386_mount", 21, 0, 0, 0},
                         {"i386_unshare", 310, CLONE_NEWUSER, 0, 0}, {"i386_keyctl", 288, 0, -3, 0}, {"i386_bpf", 357, 0, 0, 0},  {"i386_ioctl", 54, -1, 0x5412, 0},
                         {"i386_clone3", 435, 0, 0, 0}, {"i386_ptrace", 26, 99, -1, 0},    {"i386_write", 4, -1, 0, 0},       {"i386_open", 5, 0, 0, 0}};
    struct old ix32[] = {{"x32_getpid", 39, 0, 0, 0},   {"x32_socket", 41, 38, 5, 0},      {"x32_mount", 165, 0, 0, 0},       {"x32_unshare", 272, CLONE_NEWUSER, 0, 0},
                         {"x32_ptrace", 521, 99, -1, 0}, {"x32_ioctl", 514, -1, 0x5412, 0}, {"x32_keyctl", 250, 0, -3, 0},     {"x32_bpf", 321, 0, 0, 0}};
    for (size_t i = 0; i < sizeof i386 / sizeof *i386; i++)
        tried(i386[i].name, int80, &i386[i]);
    for (size_t i = 0; i < sizeof ix32 / sizeof *ix32; i++)
        tried(ix32[i].name, x32, &ix32[i]);
    return 0;
}
#else
static int cmd_abi(void) { return 0; }
#endif

static int cmd_families(void) {
    char name[64];
    int odd[] = {-1, 46, 100, 255, 65535, INT32_MAX, INT32_MIN};
    for (int i = 0; i < 46 + (int)(sizeof odd / sizeof *odd); i++) {
        int family = i < 46 ? i : odd[i - 46];
        int pair[2];
        snprintf(name, sizeof name, "socket_%d", family);
        say(name, socket(family, SOCK_DGRAM, 0));
        snprintf(name, sizeof name, "socketpair_%d", family);
        say(name, socketpair(family, SOCK_STREAM, 0, pair));
    }
    /* The kernel reads 32 bits of the family. */
    say("socket_38_high", syscall(SYS_socket, (long)0xdeadbeef00000026UL, SOCK_SEQPACKET, 0L));
    say("socket_40_high", syscall(SYS_socket, (long)0x100000028UL, SOCK_STREAM, 0L));
    say("alg", socket(38, SOCK_SEQPACKET, 0));
    say("vsock", socket(40, SOCK_STREAM, 0));
    say("raw_inet", socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
    say("raw_inet6", socket(AF_INET6, SOCK_RAW, 58));
    say("raw_ip", socket(AF_INET, SOCK_RAW, IPPROTO_RAW));
    say("packet", socket(AF_PACKET, SOCK_RAW, 0));
    say("packet_dgram", socket(AF_PACKET, SOCK_DGRAM, 0));
    for (int protocol = 0; protocol <= 23; protocol++) {
        snprintf(name, sizeof name, "netlink_%d", protocol);
        say(name, socket(AF_NETLINK, SOCK_RAW, protocol));
    }
    say("tcp", socket(AF_INET, SOCK_STREAM, 0));
    say("udp", socket(AF_INET, SOCK_DGRAM, 0));
    say("tcp6", socket(AF_INET6, SOCK_STREAM, 0));
    say("unix", socket(AF_UNIX, SOCK_STREAM, 0));
    say("icmp", socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP));
    return 0;
}

static long link_add(void) {
    int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    if (fd < 0)
        return -1;
    struct {
        struct nlmsghdr h;
        struct ifinfomsg i;
        struct rtattr a;
        char name[8];
        struct rtattr info, kind;
        char dummy[8];
    } m = {.h = {sizeof m, RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, 1, 0},
           .a = {sizeof(struct rtattr) + 8, IFLA_IFNAME}, .name = "sbx0",
           .info = {sizeof(struct rtattr) * 2 + 8, IFLA_LINKINFO}, .kind = {sizeof(struct rtattr) + 8, IFLA_INFO_KIND}, .dummy = "dummy"};
    if (send(fd, &m, sizeof m, 0) < 0)
        return -1;
    struct {
        struct nlmsghdr h;
        struct nlmsgerr e;
        char rest[256];
    } answer;
    if (recv(fd, &answer, sizeof answer, 0) < 0)
        return -1;
    errno = -answer.e.error;
    return answer.e.error ? -1 : 0;
}

static long forked_clone(long flags) {
    long pid = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        _exit(0);
    if (pid > 0)
        waitpid((pid_t)pid, NULL, 0);
    return pid;
}

/* What the namespaces' owner could do: to be run with every capability and without a filter. */
static int cmd_owner(void) {
    char name[64];
    if (outside())
        return 99;
    mkdir("/tmp/probe-mnt", 0777);
    say("mount_tmpfs", mount("none", "/tmp/probe-mnt", "tmpfs", 0, NULL));
    say("mount_proc", mount("none", "/tmp/probe-mnt", "proc", 0, NULL));
    say("mount_sysfs", mount("none", "/tmp/probe-mnt", "sysfs", 0, NULL));
    say("mount_cgroup", mount("none", "/tmp/probe-mnt", "cgroup", 0, "memory"));
    say("mount_cgroup2", mount("none", "/tmp/probe-mnt", "cgroup2", 0, NULL));
    say("mount_overlay", mount("none", "/tmp/probe-mnt", "overlay", 0, "lowerdir=/usr:/etc"));
    say("mount_fuse", mount("none", "/tmp/probe-mnt", "fuse", 0, "fd=3,rootmode=40000,user_id=0,group_id=0"));
    say("mount_devpts", mount("none", "/tmp/probe-mnt", "devpts", 0, "newinstance"));
    say("mount_ramfs", mount("none", "/tmp/probe-mnt", "ramfs", 0, NULL));
    say("mount_bind", mount("/", "/tmp/probe-mnt", NULL, MS_BIND | MS_REC, NULL));
    say("mount_move", mount("/proc", "/tmp/probe-mnt", NULL, MS_MOVE, NULL));
    say("mount_shared", mount(NULL, "/", NULL, MS_SHARED, NULL));
    const char *points[] = {"/", "/proc", "/sys", "/dev", "/dev/null", "/dev/pts", "/dev/shm", "/proc/sys", "/proc/kcore", "/proc/keys", "/proc/kallsyms",
                            "/proc/sysrq-trigger", "/sys/firmware", "/tmp", "/run", "/usr", "/etc"};
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        snprintf(name, sizeof name, "umount_%s", points[i]);
        struct stat s;
        if (stat(points[i], &s))
            continue;
        long r = umount2(points[i], MNT_DETACH);
        if (r < 0 && errno == EINVAL)
            continue; /* not a mount point here */
        say(name, r);
        snprintf(name, sizeof name, "remount_%s", points[i]);
        say(name, mount(NULL, points[i], NULL, MS_REMOUNT | MS_BIND, NULL));
    }
    say("fsopen_tmpfs", syscall(430, "tmpfs", 0));
    say("fsopen_ext4", syscall(430, "ext4", 0));
    say("open_tree_clone", syscall(428, AT_FDCWD, "/", 1));
    say("mount_setattr_root", syscall(442, AT_FDCWD, "/", 0, (unsigned long[4]){0, 1, 0, 0}, 32L));
    say("pivot", syscall(SYS_pivot_root, "/tmp", "/tmp"));
    say("sethostname", sethostname("owned", 5));
    say("setdomainname", setdomainname("owned", 5));
    say("raw", socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
    say("packet", socket(AF_PACKET, SOCK_RAW, 0));
    say("netfilter", link_add()); /* a link first: whoever may make one may also load rules */
    say("link_add", link_add());
    int flags[] = {CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWNET, CLONE_NEWPID, CLONE_NEWIPC, CLONE_NEWUTS, 0x02000000, 0x80};
    const char *names[] = {"user", "ns", "net", "pid", "ipc", "uts", "cgroup", "time"};
    for (int i = 0; i < 8; i++) {
        snprintf(name, sizeof name, "unshare_%s", names[i]);
        struct door d = {name, SYS_unshare, flags[i]};
        tried(name, enter, &d);
        if (flags[i] == 0x80)
            continue;
        snprintf(name, sizeof name, "clone_%s", names[i]);
        say(name, forked_clone(flags[i]));
        snprintf(name, sizeof name, "user_%s", names[i]);
        d.a = flags[i] | CLONE_NEWUSER;
        tried(name, enter, &d);
    }
    const char *kinds[] = {"user", "mnt", "net", "pid", "ipc", "uts", "cgroup"};
    for (int i = 0; i < 7; i++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/1/ns/%s", kinds[i]);
        snprintf(name, sizeof name, "setns_%s", kinds[i]);
        int fd = open(path, O_RDONLY);
        say(name, fd < 0 ? -1 : setns(fd, 0));
    }
    say("mknod_null", mknod("/tmp/probe-null", S_IFCHR | 0666, 0x103));
    say("mknod_mem", mknod("/tmp/probe-mem", S_IFCHR | 0666, 0x101));
    say("mknod_disk", mknod("/tmp/probe-disk", S_IFBLK | 0666, 0x800));
    say("mknod_fuse", mknod("/tmp/probe-fuse", S_IFCHR | 0666, 0xae5));
    struct rlimit r;
    getrlimit(RLIMIT_CORE, &r);
    say("nice", setpriority(PRIO_PROCESS, 0, -5));
    say("swapon", syscall(SYS_swapon, "/tmp", 0));
    say("settime", syscall(SYS_clock_settime, 0, (long[2]){0, 0}));
    say("kexec", syscall(SYS_kexec_load, 0, 0, 0, 0));
    say("module", syscall(SYS_init_module, "", 0, ""));
    say("syslog", syscall(SYS_syslog, 3, name, sizeof name));
    say("iopl", syscall(SYS_iopl, 3));
    say("acct", syscall(SYS_acct, "/tmp/acct"));
    say("chroot", chroot("/"));
    return 0;
}

static void door_open(const char *label, const char *path, int flags) {
    char name[512];
    int fd = open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    snprintf(name, sizeof name, "%s", label);
    say(name, fd);
    if (fd >= 0)
        close(fd);
}

/* PID 1 is ours and must be out of reach: neither traced, read, nor used as a door. */
static int cmd_pid1(void) {
    const char *files[] = {"mem", "environ", "maps", "auxv", "root", "cwd", "exe", "fd/0", "fd/1", "fd/2", "fdinfo/0", "stack", "syscall", "pagemap", "io", "ns/mnt", "ns/user", "ns/net", "map_files", "personality", "clear_refs"};
    char path[256], name[300];
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "/proc/1/%s", files[i]);
        door_open(files[i], path, O_RDONLY);
        char target[256];
        snprintf(name, sizeof name, "readlink_%s", files[i]);
        ssize_t n = readlink(path, target, sizeof target);
        if (n >= 0 || errno != EINVAL)
            say(name, n);
    }
    door_open("mem_write", "/proc/1/mem", O_RDWR);
    door_open("exe_write", "/proc/1/exe", O_WRONLY);
    door_open("oom_score_adj_write", "/proc/1/oom_score_adj", O_WRONLY);
    DIR *d = opendir("/proc/1/fd");
    int seen = 0;
    for (struct dirent *e; d && (e = readdir(d));)
        seen += e->d_name[0] != '.';
    printf("fds_seen=%d\n", seen);
    say("root_etc", open("/proc/1/root/etc/passwd", O_RDONLY));
    say("cwd_dir", open("/proc/1/cwd/.", O_RDONLY));
    say("chdir_root", chdir("/proc/1/root"));
    say("chdir_cwd", chdir("/proc/1/cwd"));
    say("ptrace_attach", ptrace(PTRACE_ATTACH, 1, 0, 0));
    say("ptrace_seize", ptrace(PTRACE_SEIZE, 1, 0, 0));
    char byte;
    struct iovec local = {&byte, 1}, remote = {(void *)0x400000, 1};
    say("process_vm_readv", process_vm_readv(1, &local, 1, &remote, 1, 0));
    say("process_vm_writev", process_vm_writev(1, &local, 1, &remote, 1, 0));
    long pidfd = syscall(SYS_pidfd_open, 1, 0);
    say("pidfd_getfd", pidfd < 0 ? -1 : syscall(438, pidfd, 0, 0));
    say("setns_pidfd", pidfd < 0 ? -1 : syscall(SYS_setns, pidfd, CLONE_NEWNS));
    say("kcmp", syscall(SYS_kcmp, 1, getpid(), 0, 0, 0));
    say("kill_term", kill(1, SIGTERM));
    say("kill_kill", kill(1, SIGKILL));
    printf("alive=OK\n");
    return 0;
}

static int by_number(const struct dirent **a, const struct dirent **b) { return atoi((*a)->d_name) - atoi((*b)->d_name); }

/* Our own descriptors, but the one that lists them. */
static int cmd_fds(void) {
    struct dirent **list;
    int n = scandir("/proc/self/fd", &list, NULL, by_number);
    for (int i = 0; i < n; i++) {
        char path[64], target[512] = "";
        if (list[i]->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "/proc/self/fd/%.10s", list[i]->d_name);
        if (fcntl(atoi(list[i]->d_name), F_GETFD) < 0)
            continue;
        ssize_t len = readlink(path, target, sizeof target - 1);
        if (len > 0)
            printf("%s=%s\n", list[i]->d_name, target);
    }
    return 0;
}

static void walk(const char *dir, int depth) {
    DIR *d = depth < 24 ? opendir(dir) : NULL;
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[4096];
        struct stat s;
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        /* Every process has the same files; our own directory stands for all, and its threads for it. */
        if (!strcmp(dir, "/proc") && e->d_name[0] >= '0' && e->d_name[0] <= '9' && atoi(e->d_name) != getpid())
            continue;
        if (!strcmp(e->d_name, "task") || !strcmp(e->d_name, "map_files") || !strcmp(e->d_name, "fd") || lstat(path, &s))
            continue;
        if (S_ISDIR(s.st_mode)) {
            walk(path, depth + 1);
        } else if (S_ISREG(s.st_mode) && s.st_mode & 0222) { /* to root inside an open tells nothing: it may override the mode */
            int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
            if (fd >= 0) {
                char shown[4096];
                snprintf(shown, sizeof shown, "%s", path);
                char own[32];
                snprintf(own, sizeof own, "/proc/%d/", getpid());
                if (!strncmp(shown, own, strlen(own)))
                    printf("/proc/PID/%s\n", shown + strlen(own));
                else
                    printf("%s\n", shown);
                close(fd);
            }
        }
    }
    if (d)
        closedir(d);
}

/* Every program that can be named through /proc, opened for writing. */
static int cmd_exewrite(void) {
    DIR *d = opendir("/proc");
    int opened = 0, read_only = 0;
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[64];
        if (e->d_name[0] < '0' || e->d_name[0] > '9' || atoi(e->d_name) == getpid())
            continue;
        snprintf(path, sizeof path, "/proc/%.10s/exe", e->d_name);
        int ro = open(path, O_RDONLY | O_CLOEXEC);
        if (ro >= 0) {
            char again[64];
            read_only++;
            snprintf(again, sizeof again, "/proc/self/fd/%d", ro);
            opened += open(again, O_WRONLY | O_CLOEXEC) >= 0;
            close(ro);
        }
        opened += open(path, O_WRONLY | O_CLOEXEC) >= 0;
        opened += open(path, O_RDWR | O_CLOEXEC) >= 0;
        opened += open(path, O_WRONLY | O_TRUNC | O_CLOEXEC) >= 0;
    }
    printf("written=%d\nread=%d\n", opened, read_only);
    return 0;
}

static int cmd_tty(void) {
    char name[64];
    const char *text = "echo pwned\n";
    int extra[8], n = 0;
    extra[n++] = 0;
    extra[n++] = 1;
    extra[n++] = 2;
    int tty = open("/dev/tty", O_RDWR);
    say("open_dev_tty", tty);
    if (tty >= 0)
        extra[n++] = tty;
    int console = open("/dev/console", O_RDWR | O_NOCTTY);
    say("open_dev_console", console);
    for (int i = 0; i < n; i++) {
        snprintf(name, sizeof name, "isatty_%d", extra[i]);
        say(name, isatty(extra[i]) ? 0 : -1);
        unsigned long requests[] = {0x5412, 0xdeadbeef00005412UL, 0x100005412UL, 0xffffffff00005412UL};
        for (int r = 0; r < 4; r++) {
            long worst = -1;
            for (const char *c = text; *c; c++) {
                long now = syscall(SYS_ioctl, extra[i], requests[r], c);
                worst = now >= 0 ? now : worst;
            }
            snprintf(name, sizeof name, "tiocsti_%d_%d", extra[i], r);
            say(name, worst);
        }
        char subcode = 3; /* TIOCLINUX paste */
        snprintf(name, sizeof name, "tioclinux_%d", extra[i]);
        say(name, syscall(SYS_ioctl, extra[i], 0x541c, &subcode));
        int discipline = 0;
        snprintf(name, sizeof name, "tiocsetd_%d", extra[i]);
        say(name, syscall(SYS_ioctl, extra[i], 0x5423, &discipline));
        snprintf(name, sizeof name, "tioccons_%d", extra[i]);
        say(name, syscall(SYS_ioctl, extra[i], 0x541d, 0));
        snprintf(name, sizeof name, "tiocsctty_%d", extra[i]);
        say(name, ioctl(extra[i], TIOCSCTTY, 0));
    }
    return 0;
}

static int unix_address(const char *where, int abstract, struct sockaddr_un *a) {
    memset(a, 0, sizeof *a);
    a->sun_family = AF_UNIX;
    snprintf(a->sun_path + abstract, sizeof a->sun_path - 1, "%s", where);
    return (int)(offsetof(struct sockaddr_un, sun_path) + abstract + strlen(where));
}

static int cmd_connect(const char *where, int abstract) {
    struct sockaddr_un a;
    int length = unix_address(where, abstract, &a), fd = socket(AF_UNIX, SOCK_STREAM, 0);
    say("connect", connect(fd, (struct sockaddr *)&a, (socklen_t)length));
    return 0;
}

static int cmd_listen(const char *where, int abstract) {
    struct sockaddr_un a;
    int length = unix_address(where, abstract, &a), fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(fd, (struct sockaddr *)&a, (socklen_t)length) || listen(fd, 5)) {
        perror("listen");
        return 1;
    }
    printf("ready\n");
    fflush(stdout);
    struct pollfd p = {0, POLLIN, 0};
    poll(&p, 1, 60000); /* until our stdin closes */
    return 0;
}

static int cmd_tcp(int port, int listening) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (!listening) {
        say("connect", connect(fd, (struct sockaddr *)&a, sizeof a));
        return 0;
    }
    int r = bind(fd, (struct sockaddr *)&a, sizeof a);
    say("bind", r ? r : listen(fd, 5));
    socklen_t length = sizeof a;
    getsockname(fd, (struct sockaddr *)&a, &length);
    printf("port=%d\nready\n", ntohs(a.sin_port));
    fflush(stdout);
    struct pollfd p = {0, POLLIN, 0};
    if (port == 0)
        poll(&p, 1, 60000);
    return 0;
}

static int cmd_ipc(int key) {
    int id = shmget(key, 4096, IPC_CREAT | 0666);
    say("shmget", id);
    say("semget", semget(key, 1, IPC_CREAT | 0666));
    say("msgget", msgget(key, IPC_CREAT | 0666));
    char name[64];
    snprintf(name, sizeof name, "/probe-%d", key);
    say("mq_open", mq_open(name, O_CREAT | O_RDWR, 0600, NULL));
    say("shm_open", shm_open(name, O_CREAT | O_RDWR, 0600));
    return 0;
}

/* A key that stays with the user, not with the process; or none any more. */
static int cmd_key(const char *clear) {
    say("add_key", syscall(SYS_add_key, "user", "probe", "x", 1L, -4L /* KEY_SPEC_USER_KEYRING */));
    if (*clear)
        say("keyctl", syscall(SYS_keyctl, 7L /* KEYCTL_CLEAR */, -4L));
    return 0;
}

static int cmd_crash(const char *how) {
    if (!strcmp(how, "abort"))
        abort();
    if (!strcmp(how, "segv"))
        *(volatile int *)8 = 1;
    if (!strcmp(how, "sys"))
        return (int)syscall(39 | 0x40000000L);
    raise(atoi(how));
    return 0;
}

/* end N: exit with it. end N SIGNAL: suffer that signal first, whatever libc keeps for itself. */
static int cmd_end(int code, const char *signal) {
    if (signal)
        syscall(SYS_tgkill, getpid(), getpid(), atoi(signal));
    return code;
}

/* await: say `ready`, then wait with every signal as it was. await N: handle each signal that can be by exit with N; ignore: by nothing. */
static int answer;
static void on_signal(int signal) {
    (void)signal;
    _exit(answer);
}

static int cmd_await(const char *how) {
    answer = atoi(how);
    for (int s = 1; *how && s <= 64; s++) {
        struct sigaction a = {.sa_handler = answer ? on_signal : SIG_IGN};
        sigaction(s, &a, NULL);
    }
    if (write(1, "ready\n", 6) != 6)
        return 98;
    /* Not for ever, whoever forgets us. */
    for (double end = 60; end > 0; end--)
        sleep(1);
    return 99;
}

/* orphans N RATE: N processes whose parent is gone when they end, so many a second. */
static int cmd_orphans(int count, int rate) {
    if (write(1, "ready\n", 6) != 6)
        return 98;
    struct timespec begin, now;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (int done = 0; done < count;) {
        /* A parent has a litter of twenty, and leaves it. */
        pid_t parent = fork();
        if (parent < 0)
            return 97;
        if (parent == 0) {
            for (int i = 0; i < 20; i++)
                if (fork() == 0) {
                    usleep((useconds_t)(rand() % 5000));
                    _exit(0);
                }
            _exit(0);
        }
        waitpid(parent, NULL, 0);
        done += 20;
        clock_gettime(CLOCK_MONOTONIC, &now);
        double early = (double)done / rate - ((double)(now.tv_sec - begin.tv_sec) + (double)(now.tv_nsec - begin.tv_nsec) / 1e9);
        if (early > 0)
            usleep((useconds_t)(early * 1e6));
    }
    return 0;
}

/* An orphan is traced by a sibling, dies, and stays a zombie of its tracer's until that ends; then we do, with 5. */
static int cmd_traced(void) {
    int ends[2];
    if (pipe(ends))
        return 98;
    pid_t parent = fork();
    if (parent == 0) {
        pid_t orphan = fork();
        if (orphan == 0) {
            pause();
            _exit(0);
        }
        if (write(ends[1], &orphan, sizeof orphan) != sizeof orphan)
            _exit(1);
        _exit(0);
    }
    pid_t orphan = 0;
    waitpid(parent, NULL, 0);
    if (read(ends[0], &orphan, sizeof orphan) != sizeof orphan)
        return 97;
    pid_t tracer = fork();
    if (tracer == 0) {
        if (ptrace(PTRACE_SEIZE, orphan, 0, 0))
            _exit(1);
        kill(orphan, SIGKILL);
        usleep(200000);
        _exit(0);
    }
    int status = 1;
    waitpid(tracer, &status, 0);
    usleep(100000);
    return status ? 96 : kill(orphan, 0) ? 5 : 95;
}

static int cmd_ids(void) {
    gid_t list[256];
    uid_t r, e, s;
    gid_t gr, ge, gs;
    getresuid(&r, &e, &s);
    getresgid(&gr, &ge, &gs);
    printf("uids=%u %u %u\ngids=%u %u %u\ngroups=", r, e, s, gr, ge, gs);
    int n = getgroups(256, list);
    for (int i = 0; i < n; i++)
        printf("%s%u", i ? " " : "", list[i]);
    printf("\n");
    say("setgroups_none", setgroups(0, NULL));
    say("setgroups_0", setgroups(1, (gid_t[]){0}));
    say("setuid_0", setuid(0));
    say("setuid_1", setuid(1));
    return 0;
}

/* Which file systems and devices stand at the places that every program trusts. */
static int cmd_magics(void) {
    const char *places[] = {"/", "/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"};
    const char *nodes[] = {"null", "zero", "full", "random", "urandom", "tty", "console"};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        struct statfs f;
        struct stat s;
        if (!statfs(places[i], &f) && !stat(places[i], &s))
            printf("%s=%lx\ninode_%s=%lu\n", places[i], (unsigned long)f.f_type, places[i], (unsigned long)s.st_ino);
    }
    for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++) {
        char path[32];
        struct stat s;
        snprintf(path, sizeof path, "/dev/%s", nodes[i]);
        if (!lstat(path, &s))
            printf("%s=%s %u:%u\n", nodes[i], S_ISCHR(s.st_mode) ? "char" : "other", major(s.st_rdev), minor(s.st_rdev));
    }
    char cwd[4096];
    printf("cwd=%s\n", syscall(SYS_getcwd, cwd, sizeof cwd) > 0 ? cwd : "none");
    return 0;
}

static int cmd_securebits(void) {
    printf("securebits=%d\nno_new_privs=%d\ndumpable=%d\nseccomp=%d\npdeathsig_set=%d\n", prctl(PR_GET_SECUREBITS), prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0),
           prctl(PR_GET_DUMPABLE), prctl(PR_GET_SECCOMP), 0);
    for (int c = 0; c <= 40; c++)
        if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, c, 0, 0) == 0)
            printf("ambient=%d\n", c);
    return 0;
}

/* How PID 1 and we are scheduled: policy, flags, niceness, and the length of a turn in ns. man: sched_getattr(2) */
static int cmd_turns(void) {
    for (pid_t pid = 1; pid >= 0; pid--) {
        struct { uint32_t size, policy; uint64_t flags; int32_t nice; uint32_t priority; uint64_t runtime, deadline, period; } a;
        if (syscall(SYS_sched_getattr, pid, &a, sizeof a, 0)) return 1;
        printf("%u %llu %d %llu\n", a.policy, (unsigned long long)a.flags, a.nice, (unsigned long long)a.runtime);
    }
    return 0;
}

/* Filters may be added, never loosened; nobody may be told of our calls or suspend the filter. */
static int cmd_filters(void) {
    struct sock_filter allow[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog p = {1, allow};
    say("add_filter", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &p));
    say("unshare_after_filter", unshare(CLONE_NEWUSER));
    say("socket_alg_after_filter", socket(38, SOCK_SEQPACKET, 0));
    pid_t pid = fork();
    if (pid == 0) {
        pause();
        _exit(0);
    }
    long r = ptrace(PTRACE_SEIZE, pid, 0, 1 << 21 /* PTRACE_O_SUSPEND_SECCOMP */);
    say("suspend_seccomp", r);
    if (r < 0)
        say("trace_own_child", ptrace(PTRACE_SEIZE, pid, 0, 0));
    kill(pid, SIGKILL);
    return 0;
}

/* SIGIO must not cross the edge: F_SETOWN takes pids of our namespace only. */
static int cmd_setown(void) {
    for (int fd = 0; fd < 3; fd++) {
        char name[32];
        snprintf(name, sizeof name, "setown_init_%d", fd);
        say(name, fcntl(fd, F_SETOWN, 1));
        snprintf(name, sizeof name, "async_%d", fd);
        say(name, fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_ASYNC));
    }
    printf("some output\n");
    return 0;
}

/* ---- outside the sandbox ---- */

/* leak N CMD...: N descriptors without close-on-exec, of every kind that could be a way out. */
static int cmd_leak(int n, char **argv) {
    for (int i = 0; i < n; i++) {
        int fd = -1, pair[2] = {-1, -1};
        switch (i % 8) {
        case 0: fd = open("/", O_RDONLY | O_DIRECTORY); break;
        case 1: fd = open("/", O_PATH); break;
        case 2: fd = open("/proc", O_RDONLY | O_DIRECTORY); break;
        case 3: fd = open("/etc/passwd", O_RDONLY); break;
        case 4: socketpair(AF_UNIX, SOCK_STREAM, 0, pair); continue;
        case 5: fd = open("/proc/self/ns/mnt", O_RDONLY); break;
        case 6: fd = open("/sys/fs/cgroup", O_RDONLY | O_DIRECTORY); break;
        case 7: fd = open("/proc/self/exe", O_PATH); break;
        }
        if (fd >= 0)
            fcntl(fd, F_SETFD, 0);
    }
    execvp(argv[0], argv);
    perror(argv[0]);
    return 127;
}

static const struct {
    const char *name;
    unsigned nr;
} numbers[] = {{"clone3", 435}, {"openat2", 437}, {"mount_setattr", 442}, {"fsopen", 430}, {"fsconfig", 431}, {"fsmount", 432}, {"open_tree", 428},
               {"move_mount", 429}, {"close_range", 436}, {"landlock_create_ruleset", 444}, {"landlock_add_rule", 445}, {"landlock_restrict_self", 446},
               {"pidfd_send_signal", 424}, {"pidfd_open", 434}, {"seccomp", 317}, {"statx", 332}, {"memfd_create", 319}, {"unshare", 272}, {"capset", 126},
               {"signalfd4", 289}, {"waitid", 247}, {"setns", 308}};

/* without NAME,NAME,... CMD...: an old kernel, by a filter that answers ENOSYS (EPERM with a leading '!'). */
static int cmd_without(char *list, char **argv) {
    struct sock_filter f[128];
    unsigned n = 0, answer = ENOSYS;
    if (*list == '!') {
        answer = EPERM;
        list++;
    }
    f[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (char *word = strtok(list, ","); word; word = strtok(NULL, ",")) {
        unsigned nr = ~0u;
        for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
            if (!strcmp(word, numbers[i].name))
                nr = numbers[i].nr;
        if (nr == ~0u) {
            fprintf(stderr, "probe: no number for %s\n", word);
            return 99;
        }
        f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1);
        f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | answer);
    }
    f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog p = {(unsigned short)n, f};
    /* As root the filter needs no no_new_privs, so that setuid helpers go on working. The caller then becomes the user. */
    if (geteuid() != 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return 98;
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &p)) {
        perror("seccomp");
        return 98;
    }
    if (geteuid() == 0 && getenv("BECOME_UID")) {
        gid_t gid = (gid_t)atoi(getenv("BECOME_GID"));
        uid_t uid = (uid_t)atoi(getenv("BECOME_UID"));
        if (setgroups(1, &gid) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid))
            return 98;
    }
    execvp(argv[0], argv);
    perror(argv[0]);
    return 127;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int same_settings(struct termios *a, struct termios *b) {
    return a->c_iflag == b->c_iflag && a->c_oflag == b->c_oflag && a->c_cflag == b->c_cflag && a->c_lflag == b->c_lflag && !memcmp(a->c_cc, b->c_cc, 17);
}

/* pty STEP... -- CMD...: run CMD with a terminal of its own as controlling terminal, and play the steps against it:
 *   =TEXT  wait until TEXT was shown     +TEXT  type TEXT (\r, \n, \x03 and \x1a by C's names)
 *   @SECONDS wait     !SIGNAL to CMD   ?RxC set the size   ~  hang up (close the master)
 * Afterwards prints what was shown, then, on lines of their own, what the tests ask about. */
static int cmd_pty(char **argv) {
    int master, slave;
    struct winsize size = {25, 77, 0, 0};
    struct termios before, after;
    if (openpty(&master, &slave, NULL, NULL, &size))
        return 98;
    tcgetattr(slave, &before);
    char **steps = argv;
    while (*argv && strcmp(*argv, "--"))
        argv++;
    int count = (int)(argv - steps);
    pid_t pid = fork();
    if (pid == 0) {
        setsid();
        ioctl(slave, TIOCSCTTY, 0);
        dup2(slave, 0), dup2(slave, 1), dup2(slave, 2);
        close(master);
        if (slave > 2)
            close(slave);
        execvp(argv[1], argv + 1);
        perror(argv[1]);
        _exit(127);
    }
    static char shown[1 << 20];
    size_t length = 0, seen = 0;
    int status = 0, ended = 0, hung = 0, failed = 0, step = 0, stops = 0;
    double deadline = now() + 25, wait_until = 0;
    while (now() < deadline) {
        struct pollfd p = {hung ? -1 : master, POLLIN, 0};
        poll(&p, 1, 10);
        if (p.revents & POLLIN) {
            ssize_t n = read(master, shown + length, sizeof shown - 1 - length);
            if (n > 0)
                length += (size_t)n;
            continue;
        }
        pid_t gone = ended ? 0 : waitpid(pid, &status, WNOHANG | WUNTRACED | WCONTINUED);
        if (gone == pid && WIFSTOPPED(status))
            stops++, status = 0;
        else if (gone == pid && !WIFCONTINUED(status))
            ended = 1;
        /* What was shown last can still be waited for; nothing else makes sense after the end. */
        if (ended && (step >= count || *steps[step] != '='))
            break;
        if (step >= count)
            continue;
        char *word = steps[step];
        if (*word == '=') {
            shown[length] = 0;
            char *found = strstr(shown + seen, word + 1);
            if (!found && ended)
                break;
            if (!found)
                continue;
            seen = (size_t)(found - shown) + strlen(word + 1);
        } else if (*word == '%') { /* until CMD has stopped N times */
            if (stops < atoi(word + 1))
                continue;
        } else if (*word == '+') {
            for (char *c = word + 1; *c; c++) {
                char out = *c;
                if (*c == '\\') {
                    c++;
                    out = *c == 'r' ? '\r' : *c == 'n' ? '\n' : *c == 'c' ? 3 : *c == 'z' ? 26 : *c == 'd' ? 4 : *c;
                }
                if (write(master, &out, 1) != 1)
                    failed = 1;
            }
        } else if (*word == '@') {
            if (wait_until == 0)
                wait_until = now() + atof(word + 1);
            if (now() < wait_until)
                continue;
            wait_until = 0;
        } else if (*word == '!') {
            kill(pid, atoi(word + 1));
        } else if (*word == '?') {
            sscanf(word + 1, "%hux%hu", &size.ws_row, &size.ws_col);
            ioctl(master, TIOCSWINSZ, &size);
        } else if (*word == '~') {
            close(slave);
            close(master);
            hung = 1;
        }
        step++;
    }
    if (!ended) {
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
    }
    fwrite(shown, 1, length, stdout);
    printf("\n-- pty --\nended=%d\nsteps=%d/%d\nstops=%d\n", ended, step, count, stops);
    if (WIFEXITED(status))
        printf("code=%d\n", WEXITSTATUS(status));
    else
        printf("signal=%d\n", WTERMSIG(status));
    if (!hung) {
        int queued = -1;
        tcgetattr(slave, &after);
        printf("restored=%d\n", same_settings(&before, &after));
        /* Whatever sits in the line discipline's queue: make it countable without a newline. */
        struct termios raw = after;
        cfmakeraw(&raw);
        raw.c_cc[VMIN] = 0, raw.c_cc[VTIME] = 0;
        tcsetattr(slave, TCSANOW, &raw);
        ioctl(slave, FIONREAD, &queued);
        printf("queued=%d\n", queued);
    }
    return failed;
}

/* Bombs: each takes as much of one thing as it can get, forever, and dies of SIGTERM like anybody. `wall=ERRNO` is said when something was
 * refused for the first time. `stubborn` in front: nothing but SIGKILL ends it. */

static void wall(void) {
    static int told;
    if (!told++) {
        /* Not by stdio: many of us share a buffer. */
        char line[64];
        int n = snprintf(line, sizeof line, "wall=%s\n", strerrorname_np(errno) ? strerrorname_np(errno) : "E?");
        if (write(1, line, n) < 0) _exit(1);
    }
}

static void bomb_fork(void) {
    for (;;)
        if (fork() < 0) wall(), usleep(1000);
}

static void bomb_memory(void) {
    for (;;) {
        char *p = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) wall(), usleep(1000);
        else memset(p, 1, 1 << 20);
    }
}

static void bomb_bytes(void) {
    static char block[1 << 16];
    const char *dirs[] = {"/tmp", "/dev/shm", "/var/tmp", "/run"};
    for (int i = 0;; i++) {
        char path[64];
        snprintf(path, sizeof path, "%s/bytes-%d", dirs[i % 4], i);
        int fd = open(path, O_CREAT | O_WRONLY, 0600);
        if (fd < 0) {
            wall();
            usleep(1000);
            continue;
        }
        for (int n = 0; n < 256; n++)
            if (write(fd, block, sizeof block) < 0) {
                wall();
                usleep(1000);
                break;
            }
        close(fd);
    }
}

static void bomb_inodes(void) {
    const char *dirs[] = {"/tmp", "/dev/shm", "/var/tmp", "/run"};
    for (int i = 0;; i++) {
        char path[64];
        snprintf(path, sizeof path, "%s/inode-%d", dirs[i % 4], i);
        if (mkdir(path, 0700)) wall(), usleep(1000);
    }
}

static void bomb_fds(void) {
    for (;;) {
        if (open("/dev/null", O_RDONLY) >= 0) continue;
        wall();
        /* A table of its own for each child. */
        pid_t pid = fork();
        if (!pid) {
            close_range(3, ~0u, 0);
        } else
            usleep(1000);
    }
}

static void bomb_pipes(void) {
    static char block[1 << 16];
    for (;;) {
        int ends[2];
        if (pipe2(ends, O_NONBLOCK)) {
            wall();
            if (!fork()) close_range(3, ~0u, 0);
            else usleep(1000);
            continue;
        }
        fcntl(ends[1], F_SETPIPE_SZ, 1 << 20);
        while (write(ends[1], block, sizeof block) > 0) continue;
    }
}

static void bomb_log(void) {
    static char lines[1 << 16];
    memset(lines, 'x', sizeof lines);
    for (size_t i = 99; i < sizeof lines; i += 100) lines[i] = '\n';
    for (;;)
        if (write(1 + (rand() & 1), lines, sizeof lines) < 0) usleep(1000);
}

static void bomb_cgroup(void) {
    for (int i = 0;; i++) {
        char path[96];
        snprintf(path, sizeof path, "/sys/fs/cgroup/storm-%d", i);
        int made = mkdir(path, 0755);
        if (made) wall(), usleep(1000);
        snprintf(path, sizeof path, "/sys/fs/cgroup/storm-%d/cgroup.procs", i);
        int fd = made ? -1 : open(path, O_WRONLY);
        if (fd >= 0 && write(fd, "0", 1) < 0) wall();
        if (fd >= 0) close(fd);
    }
}

static int cmd_bomb(const char *kind, int stubborn) {
    static const struct {
        const char *name;
        void (*go)(void);
    } bombs[] = {{"fork", bomb_fork}, {"memory", bomb_memory}, {"bytes", bomb_bytes}, {"inodes", bomb_inodes},
                 {"fds", bomb_fds},   {"pipes", bomb_pipes},   {"log", bomb_log},     {"cgroup", bomb_cgroup}};
    for (size_t i = 0; i < sizeof bombs / sizeof *bombs; i++)
        if (!strcmp(kind, bombs[i].name)) {
            for (int s = 1; stubborn && s < 32; s++) signal(s, SIG_IGN);
            if (write(1, "ready\n", 6) != 6) return 1;
            bombs[i].go();
        }
    return 99;
}

/* Turn in a circle for so many seconds. */
static int cmd_spin(int seconds) {
    time_t end = time(0) + seconds;
    if (write(1, "ready\n", 6) != 6) return 1;
    for (volatile unsigned long n = 0;; n++)
        if (n % 1000000 == 0 && time(0) > end) return 0;
}

/* What of the cgroup file system lets itself be written: every file and directory below it, the limits above all. */
static void cgroup_walk(const char *dir, int depth) {
    DIR *d = depth < 12 ? opendir(dir) : 0;
    if (!d) return;
    for (struct dirent *e; (e = readdir(d));) {
        char path[4096];
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        struct stat st;
        if (lstat(path, &st)) continue;
        if (S_ISDIR(st.st_mode)) cgroup_walk(path, depth + 1);
        else if (S_ISREG(st.st_mode)) {
            int fd = open(path, O_WRONLY | O_CLOEXEC);
            if (fd >= 0) printf("writable:%s=OK\n", path), close(fd);
        }
    }
    closedir(d);
}

static int cmd_cgroup(void) {
    const char *limits[] = {"memory.max", "memory.swap.max", "memory.high", "memory.oom.group", "pids.max", "cpu.max", "cpu.weight", "cgroup.procs",
                            "cgroup.threads", "cgroup.subtree_control", "cgroup.max.depth", "cgroup.max.descendants", "cgroup.freeze", "cgroup.kill"};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        char path[96];
        snprintf(path, sizeof path, "/sys/fs/cgroup/%s", limits[i]);
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        const char *value = strstr(limits[i], "procs") || strstr(limits[i], "threads") ? "0" : strstr(limits[i], "subtree") ? "+pids" : strstr(limits[i], "freeze") || strstr(limits[i], "kill") || strstr(limits[i], "group") ? "0" : "max";
        say(limits[i], fd < 0 ? -1 : write(fd, value, strlen(value)));
        if (fd >= 0) close(fd);
    }
    /* Above: by name, where an engine shows the host's tree, and by a mount of our own, where one may mount. */
    say("mkdir", mkdir("/sys/fs/cgroup/escape", 0755));
    mkdir("/tmp/cg", 0755);
    long mounted = mount("none", "/tmp/cg", "cgroup2", 0, 0);
    say("mount", mounted);
    if (!mounted) {
        char root[4096] = "?";
        FILE *f = fopen("/proc/self/cgroup", "r");
        if (f && fgets(root, sizeof root, f)) root[strcspn(root, "\n")] = 0;
        printf("own=%s\n", root);
        const char *own[] = {"memory.max", "pids.max", "cpu.max"};
        for (size_t i = 0; i < 3; i++) {
            char path[96], name[96];
            snprintf(path, sizeof path, "/tmp/cg/%s", own[i]);
            snprintf(name, sizeof name, "mounted_%s", own[i]);
            int fd = open(path, O_WRONLY | O_CLOEXEC);
            say(name, fd < 0 ? -1 : write(fd, "max", 3));
            if (fd >= 0) close(fd);
        }
    }
    cgroup_walk("/sys/fs/cgroup", 0);
    return 0;
}

/* Exchange each pair of names, for ever. */
static int cmd_swap(char **names) {
    for (;;)
        for (char **n = names; n[0] && n[1]; n += 2) syscall(SYS_renameat2, AT_FDCWD, n[0], AT_FDCWD, n[1], 2 /* RENAME_EXCHANGE */);
}

static int is_joining(const char *dir) {
    char path[64], title[32] = "";
    snprintf(path, sizeof path, "%s/cmdline", dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, title, sizeof title - 1);
    close(fd);
    return n > 0 && strncmp(title, "sandbox", 7) == 0;
}

/* Look into every process that appears and is not yet what it is to be: until PATH is there, say how many were seen, and what was had. */
static int cmd_peek(const char *until) {
    const char *files[] = {"mem", "environ", "maps", "auxv", "syscall", "stack"};
    const char *links[] = {"exe", "cwd", "root", "ns/mnt", "ns/user"};
    long seen = 0, had = 0;
    char what[256] = "";
    pid_t self = getpid(), parent = getppid();
    puts("up");
    fflush(stdout);
    while (access(until, F_OK)) {
        DIR *proc = opendir("/proc");
        struct dirent *e;
        while (proc && (e = readdir(proc))) {
            pid_t pid = atoi(e->d_name);
            if (pid < 2 || pid == self || pid == parent) continue;
            char dir[32], path[64], text[512];
            snprintf(dir, sizeof dir, "/proc/%d", pid);
            if (!is_joining(dir)) continue;
            seen++;
            for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
                snprintf(path, sizeof path, "%s/%s", dir, files[i]);
                int fd = open(path, O_RDONLY | O_CLOEXEC);
                if (fd < 0) continue;
                /* environ and its kin open and then are empty */
                if (read(fd, text, sizeof text) > 0 && is_joining(dir)) had++, snprintf(what, sizeof what, "%s", files[i]);
                close(fd);
            }
            for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
                snprintf(path, sizeof path, "%s/%s", dir, links[i]);
                if (readlink(path, text, sizeof text) >= 0 && is_joining(dir)) had++, snprintf(what, sizeof what, "%s", links[i]);
            }
            snprintf(path, sizeof path, "%s/fd", dir);
            DIR *fds = opendir(path);
            if (fds && is_joining(dir)) had++, snprintf(what, sizeof what, "fd");
            if (fds) closedir(fds);
            if (!ptrace(PTRACE_SEIZE, pid, 0, 0) && is_joining(dir)) had++, snprintf(what, sizeof what, "ptrace");
        }
        if (proc) closedir(proc);
    }
    printf("seen=%ld\nhad=%ld %s\n", seen, had, what);
    return 0;
}

/* -------------------------------------------------------------------------------------------------- ids that are not mapped */

static void is(const char *name, int holds) {
    printf("%s=%s\n", name, holds ? "OK" : "WRONG");
    fflush(stdout);
}

static int owned(const char *path, uid_t uid, gid_t gid) {
    struct stat st;
    return !lstat(path, &st) && st.st_uid == uid && st.st_gid == gid;
}

/* How it ends in a child. */
static int in_child(int (*life)(void)) {
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) _exit(life());
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static void become(uid_t uid, gid_t gid) {
    gid_t groups[] = {gid, 77};
    if (setgroups(2, groups) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid)) say("become", -1), _exit(99);
}

/* 0: these are its ids. */
static int has_ids(uid_t uid, gid_t gid) {
    uid_t u[3];
    gid_t g[3], list[64];
    if (getresuid(&u[0], &u[1], &u[2]) || getresgid(&g[0], &g[1], &g[2])) return 1;
    for (int i = 0; i < 3; i++)
        if (u[i] != uid || g[i] != gid) return 2;
    if (getuid() != uid || geteuid() != uid || getgid() != gid || getegid() != gid) return 3;
    return getgroups(64, list) == 2 && list[0] == gid && list[1] == 77 && getgroups(0, NULL) == 2 && getgroups(1, list) < 0 ? 0 : 4;
}

static int life_user(void) {
    become(33, 44);
    is("user_ids", !has_ids(33, 44));
    say("user_setuid_0", setuid(0));
    say("user_setresgid_0", setresgid(0, -1, -1));
    say("user_setgroups", setgroups(0, NULL));
    say("user_chown_own_to_other", chown("own", 34, -1));
    say("user_chgrp_own_to_own_group", chown("own", -1, 77));
    say("user_chgrp_own_to_other", chown("own", -1, 78));
    say("user_chown_others", chown("f", 33, 44));
    say("user_mknod", mknod("n", S_IFCHR | 0644, makedev(1, 3)));
    struct rlimit none = {RLIM_INFINITY, RLIM_INFINITY};
    say("user_setrlimit", setrlimit(RLIMIT_LOCKS, &none));
    is("user_after_setrlimit", !has_ids(33, 44));
    return 0;
}

static int life_steps(void) {
    say("seteuid", seteuid(33));
    is("seteuid_ids", getuid() == 0 && geteuid() == 33);
    say("seteuid_chown", chown("f", 1, 1));
    say("seteuid_back", seteuid(0));
    say("setreuid", setreuid(5, 6));
    uid_t r, e, v;
    is("setreuid_ids", !getresuid(&r, &e, &v) && r == 5 && e == 6 && v == 6);
    say("setreuid_swap", setreuid(6, 5));
    is("setfsuid", syscall(SYS_setfsuid, 6) == 5 && syscall(SYS_setfsuid, 99) == 6 && syscall(SYS_setfsuid, -1) == 6);
    return 0;
}

static int life_exec(void) {
    become(33, 44);
    execl("/proc/self/exe", "probe", "believes", "33", "44", NULL);
    return 98;
}

/* Who sets them may be long gone. */
static int life_orphan(void) {
    int out[2];
    char answer = 9;
    if (pipe(out)) return 97;
    if (!fork()) {
        become(33, 44);
        if (!fork()) {
            usleep(200000);
            answer = has_ids(33, 44);
            _exit(write(out[1], &answer, 1) != 1);
        }
        _exit(0);
    }
    close(out[1]);
    return read(out[0], &answer, 1) == 1 ? answer : 96;
}

/* As chown(2), stat(2), mknod(2) and credentials(7) say, in the working directory. */
static int cmd_owners(void) {
    struct stat st, lst;
    struct statx stx;
    int fd = open("f", O_CREAT | O_RDWR, 0755), at = open(".", O_DIRECTORY | O_RDONLY), path;
    if (fd < 0 || at < 0 || fchmod(fd, 06755)) return perror("f"), 1;
    is("born", owned("f", 0, 0));
    say("chown", chown("f", 33, 44));
    is("lstat", owned("f", 33, 44));
    is("stat", !stat("f", &st) && st.st_uid == 33 && st.st_gid == 44);
    is("suid_is_gone", !(st.st_mode & 06000));
    is("fstat", !fstat(fd, &st) && st.st_uid == 33 && st.st_gid == 44);
    is("fstatat", !fstatat(at, "f", &st, 0) && st.st_uid == 33);
    is("fstatat_empty", !fstatat(fd, "", &st, AT_EMPTY_PATH) && st.st_uid == 33);
    is("statx", !statx(at, "f", 0, STATX_BASIC_STATS, &stx) && stx.stx_uid == 33 && stx.stx_gid == 44 && stx.stx_size == 0);
    is("statx_empty", !statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &stx) && stx.stx_uid == 33);
    is("raw_stat", !syscall(SYS_stat, "f", &st) && st.st_uid == 33);
    is("absolute", ({ char here[4096], file[8192]; snprintf(file, sizeof file, "%s/f", getcwd(here, sizeof here)); owned(file, 33, 44); }));
    say("chown_keeps_uid", chown("f", -1, 55));
    is("chown_kept_uid", owned("f", 33, 55));
    say("fchown", fchown(fd, 0, 0));
    is("fchown_back", owned("f", 0, 0));
    say("fchownat", fchownat(at, "f", 4000000000u, 70000, 0));
    is("fchownat_large", owned("f", 4000000000u, 70000));
    path = open("f", O_PATH);
    say("fchown_path", fchown(path, 1, 1));
    say("fchownat_empty", fchownat(path, "", 33, 55, AT_EMPTY_PATH));
    is("fchownat_empty_did", owned("f", 33, 55));
    if (symlink("f", "l")) return perror("l"), 1;
    say("lchown", lchown("l", 5, 6));
    is("lchown_did", owned("l", 5, 6) && owned("f", 33, 55));
    is("lchown_is_link", !lstat("l", &lst) && S_ISLNK(lst.st_mode) && !stat("l", &st) && st.st_uid == 33);
    say("chown_through_link", chown("l", 7, 8));
    is("chown_through_link_did", owned("l", 5, 6) && owned("f", 7, 8));
    say("nofollow", fchownat(at, "l", 9, 9, AT_SYMLINK_NOFOLLOW));
    is("nofollow_did", owned("l", 9, 9) && owned("f", 7, 8));
    say("mkdir", mkdir("d", 0755));
    say("chown_dir", chown("d", 33, 33));
    is("chown_dir_did", owned("d", 33, 33));
    say("write_in_it", close(open("d/x", O_CREAT | O_WRONLY, 0644)));
    say("link", link("f", "d/hard"));
    is("hard_link", owned("d/hard", 7, 8));
    say("rename", rename("d/hard", "d/other"));
    is("renamed", owned("d/other", 7, 8));
    say("unlink", unlink("d/other"));
    say("write_to_it", write(fd, "x", 1));
    say("truncate", truncate("f", 0));

    say("none", chown("none", 1, 1));
    say("notdir", chown("f/x", 1, 1));
    say("empty", chown("", 1, 1));
    say("fault", chown((char *)8, 1, 1));
    say("toolong", chown(({ static char big[5000]; memset(big, 'x', 4999); big; }), 1, 1));
    say("badfd", fchown(999, 1, 1));
    say("badflags", fchownat(at, "f", 1, 1, 0x80));
    symlink("loop", "loop");
    say("loop", chown("loop", 1, 1));
    say("stat_none", stat("none", &st));
    say("stat_fault", syscall(SYS_stat, "f", (void *)8));
    say("elsewhere", chown("/dev/shm", 33, 33));
    say("proc", chown("/proc/self/stat", 33, 33));
    say("magic", chown("/proc/self/cwd/f", 33, 33));
    chown("f", 7, 8);

    umask(022);
    say("mknod", mknod("c", S_IFCHR | 0666, makedev(1, 3)));
    is("mknod_did", !stat("c", &st) && st.st_mode == (S_IFCHR | 0644) && st.st_rdev == makedev(1, 3) && owned("c", 0, 0));
    is("mknod_cannot_be_opened", open("c", O_RDONLY) < 0);
    say("mknod_again", mknod("c", S_IFCHR | 0666, makedev(1, 3)));
    say("mknod_over_file", mknod("f", S_IFBLK | 0666, makedev(8, 1)));
    say("mknod_none", mknod("none/c", S_IFCHR | 0666, makedev(1, 3)));
    say("mknodat", mknodat(at, "b", S_IFBLK | 0600, makedev(259, 70000)));
    is("mknodat_did", !stat("b", &st) && st.st_mode == (S_IFBLK | 0600) && st.st_rdev == makedev(259, 70000));
    say("mknod_fifo", mknod("p", S_IFIFO | 0644, 0));
    say("chown_fifo", chown("p", 3, 4));
    is("chown_fifo_did", owned("p", 3, 4));
    say("chown_device", chown("c", 0, 6));
    is("chown_device_did", owned("c", 0, 6) && !stat("c", &st) && S_ISCHR(st.st_mode));
    say("unlink_device", unlink("c"));
    say("mknod_anew", mknod("c", S_IFCHR | 0600, makedev(1, 5)));

    close(open("own", O_CREAT | O_WRONLY, 0644));
    chown("own", 33, 44);
    in_child(life_user);
    is("user_chgrp_did", owned("own", 33, 77));
    in_child(life_steps);
    is("exec", !in_child(life_exec));
    is("orphan", !in_child(life_orphan));
    is("parent_is_as_before", getuid() == 0 && geteuid() == 0 && owned("f", 7, 8));
    return 0;
}

static void *swap_names(void *unused) {
    (void)unused;
    for (;;) {
        rename("to_in", "x"), symlink("in", "to_in");
        rename("to_out", "x"), symlink("/out/f", "to_out");
    }
}

static char shared_path[64];

static void *swap_memory(void *unused) {
    (void)unused;
    for (;;) memcpy(shared_path, "/out/f", 7), memcpy(shared_path, "././in", 7);
}

/* Paths that change while they are looked at: between a file of the tree and one of a volume. */
static int cmd_owners_race(int seconds) {
    pthread_t a, b;
    struct stat st;
    close(open("in", O_CREAT | O_WRONLY, 0644));
    symlink("in", "x"), symlink("in", "to_in"), symlink("/out/f", "to_out");
    strcpy(shared_path, "././in");
    if (pthread_create(&a, NULL, swap_names, NULL) || pthread_create(&b, NULL, swap_memory, NULL)) return perror("thread"), 1;
    long done = 0, odd = 0;
    for (time_t end = time(NULL) + seconds; time(NULL) < end; done++) {
        const char *path = done % 2 ? "x" : shared_path;
        chown(path, 33, 44);
        mknod("in", S_IFCHR | 0666, makedev(1, 3));
        if (!stat("/out/f", &st) && (st.st_uid || st.st_gid)) odd++;
    }
    printf("odd=%ld\nin=%s\n", odd, owned("in", 33, 44) ? "OK" : "WRONG");
    fprintf(stderr, "%ld rounds\n", done);
    fflush(stdout);
    _exit(0);
}

/* As many calls as can be, from as many processes. */
static int cmd_owners_flood(int processes, int seconds) {
    for (int i = 1; i < processes && fork(); i++) {}
    struct stat st;
    for (time_t end = time(NULL) + seconds; time(NULL) < end;) stat("/", &st), getuid(), chown("/tmp", 1, 1), setgroups(0, NULL);
    return 0;
}

/* So many sets of ids as there can be, and what then is said. */
static int cmd_owners_many(void) {
    long n = 0;
    while (n < 20000 && !setegid(n + 1) && !setegid(0)) n++;
    say("many", n < 20000 ? -1 : 0);
    is("some", n > 1000);
    is("known", !setegid(7) && getegid() == 7);
    return 0;
}

/* By every call that makes something, a name each. */
static int cmd_makes(const char *at) {
    struct { unsigned long long flags, mode, resolve; } how = {O_CREAT | O_WRONLY, 0644, 0};
    int dir = open(at, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0 || chdir(at)) return 96;
    int bad = syscall(SYS_open, "a", O_CREAT | O_WRONLY, 0644) < 0 || syscall(SYS_creat, "b", 0644) < 0;
    bad |= syscall(SYS_openat, dir, "c", O_CREAT | O_EXCL | O_RDWR, 0644) < 0 || syscall(437, dir, "d", &how, sizeof how) < 0;
    bad |= syscall(SYS_mkdir, "e/", 0755) || syscall(SYS_mkdirat, dir, "f", 0755) || syscall(SYS_symlink, "a", "g");
    bad |= syscall(SYS_symlinkat, "nowhere", dir, "h") || syscall(SYS_mknod, "i", S_IFIFO | 0644, 0) || syscall(SYS_mknodat, dir, "j", 0644, 0);
    return bad || syscall(SYS_open, "./e/../k", O_CREAT | O_EXCL | O_WRONLY, 0644) < 0 ? 97 : 0;
}

/* UID GID COMMAND... */
static int cmd_be(char **argv) {
    if (setgroups(0, NULL) || setgid(atoi(argv[1])) || setuid(atoi(argv[0]))) return 96;
    execvp(argv[2], argv + 2);
    return 127;
}

int main(int argc, char **argv) {
    const char *cmd = argc > 1 ? argv[1] : "";
    const char *one = argc > 2 ? argv[2] : "";
    if (!strcmp(cmd, "doors")) return cmd_doors();
    if (!strcmp(cmd, "sweep")) return cmd_sweep(atoi(one), atoi(argv[3]));
    if (!strcmp(cmd, "abi")) return cmd_abi();
    if (!strcmp(cmd, "families")) return cmd_families();
    if (!strcmp(cmd, "owner")) return cmd_owner();
    if (!strcmp(cmd, "pid1")) return cmd_pid1();
    if (!strcmp(cmd, "fds")) return cmd_fds();
    if (!strcmp(cmd, "walk")) return walk(one, 0), 0;
    if (!strcmp(cmd, "exewrite")) return cmd_exewrite();
    if (!strcmp(cmd, "tty")) return cmd_tty();
    if (!strcmp(cmd, "connect-abstract")) return cmd_connect(one, 1);
    if (!strcmp(cmd, "connect-unix")) return cmd_connect(one, 0);
    if (!strcmp(cmd, "listen-abstract")) return cmd_listen(one, 1);
    if (!strcmp(cmd, "listen-unix")) return cmd_listen(one, 0);
    if (!strcmp(cmd, "connect-tcp")) return cmd_tcp(atoi(one), 0);
    if (!strcmp(cmd, "listen-tcp")) return cmd_tcp(atoi(one), 1);
    if (!strcmp(cmd, "ipc")) return cmd_ipc(atoi(one));
    if (!strcmp(cmd, "key")) return cmd_key(one);
    if (!strcmp(cmd, "crash")) return cmd_crash(one);
    if (!strcmp(cmd, "end")) return cmd_end(atoi(one), argc > 3 ? argv[3] : NULL);
    if (!strcmp(cmd, "orphans")) return cmd_orphans(atoi(one), atoi(argv[3]));
    if (!strcmp(cmd, "traced")) return cmd_traced();
    if (!strcmp(cmd, "yield")) return sched_yield() ? 97 : 96;
    if (!strcmp(cmd, "await")) return cmd_await(one);
    if (!strcmp(cmd, "ids")) return cmd_ids();
    if (!strcmp(cmd, "magics")) return cmd_magics();
    if (!strcmp(cmd, "securebits")) return cmd_securebits();
    if (!strcmp(cmd, "turns")) return cmd_turns();
    if (!strcmp(cmd, "filters")) return cmd_filters();
    if (!strcmp(cmd, "setown")) return cmd_setown();
    if (!strcmp(cmd, "open-write")) return door_open("open", one, O_WRONLY), 0;
    if (!strcmp(cmd, "leak")) return cmd_leak(atoi(one), argv + 3);
    if (!strcmp(cmd, "without")) return cmd_without(argv[2], argv + 3);
    if (!strcmp(cmd, "pty")) return cmd_pty(argv + 2);
    if (!strcmp(cmd, "bomb")) return cmd_bomb(one, 0);
    if (!strcmp(cmd, "stubborn")) return cmd_bomb(one, 1);
    if (!strcmp(cmd, "spin")) return cmd_spin(atoi(one));
    if (!strcmp(cmd, "cgroup")) return cmd_cgroup();
    if (!strcmp(cmd, "swap")) return cmd_swap(argv + 2);
    if (!strcmp(cmd, "peek")) return cmd_peek(one);
    if (!strcmp(cmd, "owners")) return cmd_owners();
    if (!strcmp(cmd, "believes")) return has_ids(atoi(one), atoi(argv[3]));
    if (!strcmp(cmd, "owners-race")) return cmd_owners_race(atoi(one));
    if (!strcmp(cmd, "owners-flood")) return cmd_owners_flood(atoi(one), atoi(argv[3]));
    if (!strcmp(cmd, "owners-many")) return cmd_owners_many();
    if (!strcmp(cmd, "makes")) return cmd_makes(one);
    if (!strcmp(cmd, "be")) return cmd_be(argv + 2);
    fprintf(stderr, "probe: no such check: %s\n", cmd);
    return 99;
}
