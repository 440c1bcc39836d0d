# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_sandbox_global_optspecs
    string join \n h/help V/version
end

function __fish_sandbox_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_sandbox_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_sandbox_using_subcommand
    set -l cmd (__fish_sandbox_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c sandbox -n "__fish_sandbox_needs_command" -s h -l help -d 'Print help'
complete -c sandbox -n "__fish_sandbox_needs_command" -s V -l version -d 'Print version'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "run" -d 'Run a command in a sandbox'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "exec" -d 'Run a further command in a sandbox that runs'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "top" -d 'List the processes of a sandbox'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "cp" -d 'Copy files and directories between a sandbox and the host'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "stats" -d 'Show what living sandboxes use, again and again'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "slice" -d 'Show or set what all of your sandboxes may use together'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "apply" -d 'Put what a kept run wrote over a directory of the host into that directory'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "commit" -d 'Make an image of what a kept or running sandbox wrote'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "export" -d 'Write the tree of a kept or running sandbox as a tar'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "kept" -d 'List the writable layers that stayed'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "create" -d 'Make a sandbox, and do not run it yet'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "start" -d 'Run sandboxes again that have ended, or were made and never run'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "stop" -d 'Ask sandboxes to end, and end them'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "restart" -d 'Stop sandboxes and run them again'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "kill" -d 'Send a signal to the command of sandboxes'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "pause" -d 'Have all that is in sandboxes stand still'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "unpause" -d 'Let sandboxes go on that were paused'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "rename" -d 'Give a sandbox another name'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "update" -d 'Change the limits of sandboxes, also while they run'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "rm" -d 'Remove sandboxes that have ended, and what they wrote'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "ps" -d 'List sandboxes'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "logs" -d 'Show what a detached sandbox said'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "attach" -d 'Take part in a detached sandbox: see what it says, type what it reads'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "wait" -d 'Wait for sandboxes, and print their exit codes'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "events" -d 'Say what happens to sandboxes, as it happens'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "container" -d 'Remove all sandboxes that have ended'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "doctor" -d 'Say what this machine can do for sandboxes, and what mends the rest'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "policy" -d 'List, show, check and compare policies'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "login" -d 'Keep a user and a password for a registry'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "logout" -d 'Forget the password for a registry'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "images" -d 'List images'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "tag" -d 'Give an image one more name'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "untag" -d 'Take names away; the images stay'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "rmi" -d 'Remove images, or names of images that have others'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "history" -d 'Show how an image came to be, the newest step first'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "inspect" -d 'Print all that is known of sandboxes and images, as JSON'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "df" -d 'Show how much room images take, and what can be had back'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "prune" -d 'Remove images without a name, and what nothing refers to'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "gc" -d 'Remove blobs and layers that no image refers to'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "tree" -d 'Show which images share which layers'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "load" -d 'Take images out of an archive or a directory into the store'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "save" -d 'Write images into an archive or a directory'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "import" -d 'Make an image of a tar or of files of the host'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "diff" -d 'Say what a kept or running sandbox changed'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "pull" -d 'Bring images from registries into the store'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "push" -d 'Send an image to a registry'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "search" -d 'Look for images by a word'
complete -c sandbox -n "__fish_sandbox_needs_command" -f -a "image" -d 'Do something with images: each verb is also a command of its own'
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l rootfs -d 'Use a directory as the root: :O, the default, is copy-on-write; :rw writes through' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l pull -d 'When to fetch the image' -r -f -a "always\t'Even if it is there'
missing\t'If it is not there'
never\t'Not at all'
newer\t'If the registry has another one under that name; if it cannot be asked, the one that is there'"
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l platform -d 'Take the image for this platform: os/arch[/variant]' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l entrypoint -d 'Run this program instead of the image\'s entry point' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l layer -d 'Write to a layer of this name that stays, and is used again by the next run' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l rw -d 'Let writes below PATH through to the host' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l ro -d 'Show PATH read-only' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l hide -d 'Show nothing at PATH, now or later' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l cow -d 'Show PATH with a layer of its own on top; writes are discarded, unless --keep or --layer is said' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -s v -l volume -d 'Show a host path at another place; options ro, rw, O (copy-on-write), noexec' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l mount -d 'The same in keys: type=bind,source=PATH,target=PATH,...' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l tmpfs -d 'Mount an empty tmpfs; options size=, mode=, ro, noexec' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l shm-size -d 'Size of /dev/shm, in bytes or with a unit (k, m, g)' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l disk -d 'How much the writable layer may hold, in bytes or with a unit (k, m, g)' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l inodes -d 'How many files and directories the writable layer may have' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l overlay-backend -d 'Whose overlay lies over the layers: auto, kernel or fuse' -r -f -a "auto\t'The kernel\'s where it can, else ours'
kernel\t'The kernel\'s own'
fuse\t'Ours, served over FUSE'"
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l device -d 'Show a host device, with the access that you have to it' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -s e -l env -d 'Set a variable; NAME alone copies yours' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l env-file -d 'Read variables from a file, one NAME[=VALUE] a line' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -s w -l workdir -d 'Working directory inside' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -s u -l user -d 'Run as this user inside: a name from the root\'s own files, or a number' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l hostname -d 'Host name inside' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l name -d 'A name for the sandbox; no two run under the same' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -s l -l label -d 'Put a word on it, which ps finds it by; may be said several times' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l label-file -d 'Read labels from a file, one a line' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l cidfile -d 'Write the ID to this new file' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l pidfile -d 'Write the process ID of its PID 1, as the host knows it, to this file' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l ulimit -d 'Limit a resource as setrlimit(2) does' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l umask -d 'Permission bits that new files lack, in octal' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l oom-score-adj -d 'How much sooner than others to be killed when memory runs out' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l preserve-fds -d 'Pass descriptors 3 to 2+N to the command' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -s p -l publish -d 'Always refused: a sandbox has no network of its own' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l stop-signal -d 'The signal that asks the command to end' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l stop-timeout -d 'Seconds from the stop signal to SIGKILL' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l restart -d 'Run it again when it ends: no, on-failure[:N], always or unless-stopped' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l health-cmd -d 'Ask by this command how it is: 0 is healthy' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l health-interval -d 'How often, such as 1m30s; 30s without it' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l health-timeout -d 'How long a check may take; 30s without it' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l health-retries -d 'So many failures one after the other make it unhealthy; 3 without it' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l health-start-period -d 'Failures do not count until so long after the start' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l health-start-interval -d 'How often until then; 5s without it' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l health-on-failure -d 'What becomes of one that is unhealthy: none, kill, restart or stop' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l log-max -d 'Keep so much of what a detached sandbox says: files of SIZE, FILES of them, or none' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l detach-keys -d 'What to type at its terminal to leave a sandbox, which goes on' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l timeout -d 'Seconds after which the command is asked to end; 10 s later everything is killed' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l network -d 'none: loopback only. host: the host\'s network' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l add-host -d 'Add a line to /etc/hosts' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l dns -d 'Use this name server' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l userns -d 'Which ids inside are which outside: auto, keep-id, root, nomap or single' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l uidmap -d 'Map user ids explicitly' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l gidmap -d 'Map group ids explicitly; without it, as --uidmap' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l ipc -d 'host: share the host\'s System V and POSIX IPC, and its /dev/shm' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l pid -d 'host: see the host\'s processes' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l uts -d 'host: have the host\'s name' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l cgroupns -d 'host: see the host\'s cgroup paths' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l cap-add -d 'Keep a capability that the policy drops (ALL: every one)' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l cap-drop -d 'Drop a capability (ALL: every one)' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l security-opt -d 'seccomp=FILE|unconfined, no-new-privileges[=false], nested' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l policy -d 'The rules to start from: a name (sandbox policy list), or a file with a slash' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l require -d 'Fail where one of these cannot be had in full' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l best-effort -d 'Go on where one of these cannot be had' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -s m -l memory -d 'The most memory, in bytes or with a unit (k, m, g), or as a share of the machine\'s (50%); -1: no limit' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l memory-swap -d 'The most memory and swap together; -1: any swap' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l memory-reservation -d 'Memory that is not taken away while others have some to give' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l cpus -d 'How many processors\' time, as in 1.5' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -s c -l cpu-shares -d 'Share of the processors where others want them too; 1024 is what everybody has' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l cpuset-cpus -d 'Use these processors only, as in 0-3,5' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l cpuset-mems -d 'Use the memory of these nodes only' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l pids-limit -d 'The most processes and threads; -1: no limit' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l blkio-weight -d 'Share of the devices where others want them too, from 10 to 1000' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l device-read-bps -d 'Read at most so many bytes a second from a device' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l device-write-bps -d 'Write at most so many bytes a second to a device' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l device-read-iops -d 'Read at most so many times a second from a device' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l device-write-iops -d 'Write at most so many times a second to a device' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l cgroup-parent -d 'Where its cgroup is: a slice of your systemd (NAME.slice), or the path of a cgroup that was delegated to you' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l status-fd -d 'Write one JSON object a line to this descriptor for what happens' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -s i -l interactive -d 'Keep stdin open and pass it on'
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -s t -l tty -d 'Give the command a terminal of its own'
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -s d -l detach -d 'Run it in the background, and print its ID'
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l rm -d 'Remove it when it ends'
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l squash-ids -d 'Give files of ids that you do not have to root, where the image is unpacked now'
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l keep -d 'Keep what was written when the command ends'
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l read-only -d 'Make the whole root read-only'
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l replace -d 'Remove the sandbox that has the name, if there is one'
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l privileged -d 'Always refused: nothing in a sandbox has the host\'s rights'
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -s P -l publish-all -d 'The same'
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l init -d 'Have our init as PID 1 also where the policy makes the command PID 1'
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l no-healthcheck -d 'Do not do the checks that the image says'
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l dry-run -d 'Print what would be done, step by step, and do nothing'
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l summary -d 'Say at the end how much memory, time and processes it took'
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -l json -d 'Errors, and --dry-run, as JSON'
complete -c sandbox -n "__fish_sandbox_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand exec" -s e -l env -d 'Set a variable; NAME alone copies yours' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand exec" -l env-file -d 'Read variables from a file, one NAME[=VALUE] a line' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand exec" -s u -l user -d 'Run as this user inside: a name from the sandbox\'s own files, or a number' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand exec" -s w -l workdir -d 'Working directory inside' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand exec" -l preserve-fds -d 'Pass descriptors 3 to 2+N to the command' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand exec" -l detach-keys -d 'Always refused: there is nobody to be left with' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand exec" -s i -l interactive -d 'Keep stdin open and pass it on'
complete -c sandbox -n "__fish_sandbox_using_subcommand exec" -s t -l tty -d 'Give the command a terminal of its own'
complete -c sandbox -n "__fish_sandbox_using_subcommand exec" -s d -l detach -d 'Do not wait for it'
complete -c sandbox -n "__fish_sandbox_using_subcommand exec" -l privileged -d 'Always refused: what a sandbox may do is decided when it is made'
complete -c sandbox -n "__fish_sandbox_using_subcommand exec" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand top" -l format -d 'table, json, or a template such as \'{{.PID}}\'' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand top" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand cp" -s a -l archive -d 'Keep the owners, by number'
complete -c sandbox -n "__fish_sandbox_using_subcommand cp" -s L -l follow-link -d 'If SRC is a link, copy what it leads to'
complete -c sandbox -n "__fish_sandbox_using_subcommand cp" -l overwrite -d 'Let a directory take the place of a file, or a file that of a directory'
complete -c sandbox -n "__fish_sandbox_using_subcommand cp" -s q -l quiet -d 'Say nothing of what was left out'
complete -c sandbox -n "__fish_sandbox_using_subcommand cp" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand stats" -l no-stream -d 'Show it once'
complete -c sandbox -n "__fish_sandbox_using_subcommand stats" -l json -d 'Print one JSON array each time, on one line'
complete -c sandbox -n "__fish_sandbox_using_subcommand stats" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand slice; and not __fish_seen_subcommand_from show set reset" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand slice; and not __fish_seen_subcommand_from show set reset" -f -a "show" -d 'Print the budget'
complete -c sandbox -n "__fish_sandbox_using_subcommand slice; and not __fish_seen_subcommand_from show set reset" -f -a "set" -d 'Set parts of the budget'
complete -c sandbox -n "__fish_sandbox_using_subcommand slice; and not __fish_seen_subcommand_from show set reset" -f -a "reset" -d 'Take every limit off'
complete -c sandbox -n "__fish_sandbox_using_subcommand slice; and __fish_seen_subcommand_from show" -l json -d 'Print one JSON object'
complete -c sandbox -n "__fish_sandbox_using_subcommand slice; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c sandbox -n "__fish_sandbox_using_subcommand slice; and __fish_seen_subcommand_from set" -s m -l memory -d 'The most memory, in bytes or with a unit (k, m, g), or as a share of the machine\'s (50%); -1: no limit' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand slice; and __fish_seen_subcommand_from set" -l memory-swap -d 'The most memory and swap together; -1: any swap' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand slice; and __fish_seen_subcommand_from set" -l memory-reservation -d 'Memory that is not taken away while others have some to give' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand slice; and __fish_seen_subcommand_from set" -l cpus -d 'How many processors\' time, as in 1.5' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand slice; and __fish_seen_subcommand_from set" -s c -l cpu-shares -d 'Share of the processors where others want them too; 1024 is what everybody has' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand slice; and __fish_seen_subcommand_from set" -l cpuset-cpus -d 'Use these processors only, as in 0-3,5' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand slice; and __fish_seen_subcommand_from set" -l cpuset-mems -d 'Use the memory of these nodes only' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand slice; and __fish_seen_subcommand_from set" -l pids-limit -d 'The most processes and threads; -1: no limit' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand slice; and __fish_seen_subcommand_from set" -l blkio-weight -d 'Share of the devices where others want them too, from 10 to 1000' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand slice; and __fish_seen_subcommand_from set" -l device-read-bps -d 'Read at most so many bytes a second from a device' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand slice; and __fish_seen_subcommand_from set" -l device-write-bps -d 'Write at most so many bytes a second to a device' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand slice; and __fish_seen_subcommand_from set" -l device-read-iops -d 'Read at most so many times a second from a device' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand slice; and __fish_seen_subcommand_from set" -l device-write-iops -d 'Write at most so many times a second to a device' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand slice; and __fish_seen_subcommand_from set" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand slice; and __fish_seen_subcommand_from reset" -s h -l help -d 'Print help'
complete -c sandbox -n "__fish_sandbox_using_subcommand apply" -l format -d 'With --dry-run: json, or a template such as \'{{.Path}}\'' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand apply" -l dry-run -d 'Only say what would happen'
complete -c sandbox -n "__fish_sandbox_using_subcommand apply" -l patch -d 'Show what would happen as a patch, in git\'s form, and do nothing'
complete -c sandbox -n "__fish_sandbox_using_subcommand apply" -s f -l force -d 'Do not ask'
complete -c sandbox -n "__fish_sandbox_using_subcommand apply" -l overwrite -d 'Also what was changed on the host since'
complete -c sandbox -n "__fish_sandbox_using_subcommand apply" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand commit" -s c -l change -d 'Change how the image is to be run, by an instruction of a Dockerfile; may be said several times' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand commit" -s m -l message -d 'What to say in the image\'s history' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand commit" -s a -l author -d 'Who made it' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand commit" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand export" -s o -l output -d 'Write to this file instead of standard output' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand export" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand kept" -l format -d 'table, json, or a template such as \'{{.Name}}\'' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand kept" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l rootfs -d 'Use a directory as the root: :O, the default, is copy-on-write; :rw writes through' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l pull -d 'When to fetch the image' -r -f -a "always\t'Even if it is there'
missing\t'If it is not there'
never\t'Not at all'
newer\t'If the registry has another one under that name; if it cannot be asked, the one that is there'"
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l platform -d 'Take the image for this platform: os/arch[/variant]' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l entrypoint -d 'Run this program instead of the image\'s entry point' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l layer -d 'Write to a layer of this name that stays, and is used again by the next run' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l rw -d 'Let writes below PATH through to the host' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l ro -d 'Show PATH read-only' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l hide -d 'Show nothing at PATH, now or later' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l cow -d 'Show PATH with a layer of its own on top; writes are discarded, unless --keep or --layer is said' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -s v -l volume -d 'Show a host path at another place; options ro, rw, O (copy-on-write), noexec' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l mount -d 'The same in keys: type=bind,source=PATH,target=PATH,...' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l tmpfs -d 'Mount an empty tmpfs; options size=, mode=, ro, noexec' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l shm-size -d 'Size of /dev/shm, in bytes or with a unit (k, m, g)' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l disk -d 'How much the writable layer may hold, in bytes or with a unit (k, m, g)' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l inodes -d 'How many files and directories the writable layer may have' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l overlay-backend -d 'Whose overlay lies over the layers: auto, kernel or fuse' -r -f -a "auto\t'The kernel\'s where it can, else ours'
kernel\t'The kernel\'s own'
fuse\t'Ours, served over FUSE'"
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l device -d 'Show a host device, with the access that you have to it' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -s e -l env -d 'Set a variable; NAME alone copies yours' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l env-file -d 'Read variables from a file, one NAME[=VALUE] a line' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -s w -l workdir -d 'Working directory inside' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -s u -l user -d 'Run as this user inside: a name from the root\'s own files, or a number' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l hostname -d 'Host name inside' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l name -d 'A name for the sandbox; no two run under the same' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -s l -l label -d 'Put a word on it, which ps finds it by; may be said several times' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l label-file -d 'Read labels from a file, one a line' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l cidfile -d 'Write the ID to this new file' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l pidfile -d 'Write the process ID of its PID 1, as the host knows it, to this file' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l ulimit -d 'Limit a resource as setrlimit(2) does' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l umask -d 'Permission bits that new files lack, in octal' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l oom-score-adj -d 'How much sooner than others to be killed when memory runs out' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l preserve-fds -d 'Pass descriptors 3 to 2+N to the command' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -s p -l publish -d 'Always refused: a sandbox has no network of its own' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l stop-signal -d 'The signal that asks the command to end' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l stop-timeout -d 'Seconds from the stop signal to SIGKILL' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l restart -d 'Run it again when it ends: no, on-failure[:N], always or unless-stopped' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l health-cmd -d 'Ask by this command how it is: 0 is healthy' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l health-interval -d 'How often, such as 1m30s; 30s without it' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l health-timeout -d 'How long a check may take; 30s without it' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l health-retries -d 'So many failures one after the other make it unhealthy; 3 without it' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l health-start-period -d 'Failures do not count until so long after the start' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l health-start-interval -d 'How often until then; 5s without it' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l health-on-failure -d 'What becomes of one that is unhealthy: none, kill, restart or stop' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l log-max -d 'Keep so much of what a detached sandbox says: files of SIZE, FILES of them, or none' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l detach-keys -d 'What to type at its terminal to leave a sandbox, which goes on' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l timeout -d 'Seconds after which the command is asked to end; 10 s later everything is killed' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l network -d 'none: loopback only. host: the host\'s network' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l add-host -d 'Add a line to /etc/hosts' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l dns -d 'Use this name server' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l userns -d 'Which ids inside are which outside: auto, keep-id, root, nomap or single' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l uidmap -d 'Map user ids explicitly' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l gidmap -d 'Map group ids explicitly; without it, as --uidmap' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l ipc -d 'host: share the host\'s System V and POSIX IPC, and its /dev/shm' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l pid -d 'host: see the host\'s processes' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l uts -d 'host: have the host\'s name' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l cgroupns -d 'host: see the host\'s cgroup paths' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l cap-add -d 'Keep a capability that the policy drops (ALL: every one)' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l cap-drop -d 'Drop a capability (ALL: every one)' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l security-opt -d 'seccomp=FILE|unconfined, no-new-privileges[=false], nested' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l policy -d 'The rules to start from: a name (sandbox policy list), or a file with a slash' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l require -d 'Fail where one of these cannot be had in full' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l best-effort -d 'Go on where one of these cannot be had' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -s m -l memory -d 'The most memory, in bytes or with a unit (k, m, g), or as a share of the machine\'s (50%); -1: no limit' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l memory-swap -d 'The most memory and swap together; -1: any swap' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l memory-reservation -d 'Memory that is not taken away while others have some to give' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l cpus -d 'How many processors\' time, as in 1.5' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -s c -l cpu-shares -d 'Share of the processors where others want them too; 1024 is what everybody has' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l cpuset-cpus -d 'Use these processors only, as in 0-3,5' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l cpuset-mems -d 'Use the memory of these nodes only' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l pids-limit -d 'The most processes and threads; -1: no limit' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l blkio-weight -d 'Share of the devices where others want them too, from 10 to 1000' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l device-read-bps -d 'Read at most so many bytes a second from a device' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l device-write-bps -d 'Write at most so many bytes a second to a device' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l device-read-iops -d 'Read at most so many times a second from a device' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l device-write-iops -d 'Write at most so many times a second to a device' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l cgroup-parent -d 'Where its cgroup is: a slice of your systemd (NAME.slice), or the path of a cgroup that was delegated to you' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l status-fd -d 'Write one JSON object a line to this descriptor for what happens' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -s i -l interactive -d 'Keep stdin open and pass it on'
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -s t -l tty -d 'Give the command a terminal of its own'
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -s d -l detach -d 'Run it in the background, and print its ID'
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l rm -d 'Remove it when it ends'
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l squash-ids -d 'Give files of ids that you do not have to root, where the image is unpacked now'
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l keep -d 'Keep what was written when the command ends'
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l read-only -d 'Make the whole root read-only'
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l replace -d 'Remove the sandbox that has the name, if there is one'
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l privileged -d 'Always refused: nothing in a sandbox has the host\'s rights'
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -s P -l publish-all -d 'The same'
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l init -d 'Have our init as PID 1 also where the policy makes the command PID 1'
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l no-healthcheck -d 'Do not do the checks that the image says'
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l dry-run -d 'Print what would be done, step by step, and do nothing'
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l summary -d 'Say at the end how much memory, time and processes it took'
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -l json -d 'Errors, and --dry-run, as JSON'
complete -c sandbox -n "__fish_sandbox_using_subcommand create" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand start" -s a -l attach -d 'Take part in its streams, and return its exit code'
complete -c sandbox -n "__fish_sandbox_using_subcommand start" -s i -l interactive -d 'With -a: pass on stdin, to one that was made with -i'
complete -c sandbox -n "__fish_sandbox_using_subcommand start" -s h -l help -d 'Print help'
complete -c sandbox -n "__fish_sandbox_using_subcommand stop" -s t -l time -d 'Seconds until they are killed; without it what --stop-timeout said, or 10' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand stop" -s s -l signal -d 'The signal to ask with, instead of the sandbox\'s own' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand stop" -s f -l filter -d 'All that run and fit, as for sandbox ps' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand stop" -s a -l all -d 'All that run'
complete -c sandbox -n "__fish_sandbox_using_subcommand stop" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand restart" -s t -l time -d 'Seconds until they are killed; without it what --stop-timeout said, or 10' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand restart" -s h -l help -d 'Print help'
complete -c sandbox -n "__fish_sandbox_using_subcommand kill" -s s -l signal -d 'The signal, by name or number' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand kill" -s a -l all -d 'All that run'
complete -c sandbox -n "__fish_sandbox_using_subcommand kill" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand pause" -s a -l all -d 'All that run'
complete -c sandbox -n "__fish_sandbox_using_subcommand pause" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand unpause" -s a -l all -d 'All that are paused'
complete -c sandbox -n "__fish_sandbox_using_subcommand unpause" -s h -l help -d 'Print help'
complete -c sandbox -n "__fish_sandbox_using_subcommand rename" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand update" -s m -l memory -d 'The most memory, in bytes or with a unit (k, m, g), or as a share of the machine\'s (50%); -1: no limit' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand update" -l memory-swap -d 'The most memory and swap together; -1: any swap' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand update" -l memory-reservation -d 'Memory that is not taken away while others have some to give' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand update" -l cpus -d 'How many processors\' time, as in 1.5' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand update" -s c -l cpu-shares -d 'Share of the processors where others want them too; 1024 is what everybody has' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand update" -l cpuset-cpus -d 'Use these processors only, as in 0-3,5' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand update" -l cpuset-mems -d 'Use the memory of these nodes only' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand update" -l pids-limit -d 'The most processes and threads; -1: no limit' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand update" -l blkio-weight -d 'Share of the devices where others want them too, from 10 to 1000' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand update" -l device-read-bps -d 'Read at most so many bytes a second from a device' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand update" -l device-write-bps -d 'Write at most so many bytes a second to a device' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand update" -l device-read-iops -d 'Read at most so many times a second from a device' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand update" -l device-write-iops -d 'Write at most so many times a second to a device' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand update" -l restart -d 'When it is run again: no, on-failure[:N], always or unless-stopped' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand update" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand rm" -l filter -d 'All that fit, as for sandbox ps' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand rm" -s f -l force -d 'Kill those that run'
complete -c sandbox -n "__fish_sandbox_using_subcommand rm" -s a -l all -d 'All of them; without --force those that do not run'
complete -c sandbox -n "__fish_sandbox_using_subcommand rm" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand ps" -s f -l filter -d 'Only those that fit: name, id, status, exited, health, label, ancestor, volume, network, since, before or until, with = and a value' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand ps" -s n -l last -d 'The N that were made last, whether they run or not' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand ps" -l format -d 'table, json, or a template such as \'{{.Names}}\' or \'table {{.ID}}\\t{{.Status}}\'' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand ps" -s a -l all -d 'Also those that have ended'
complete -c sandbox -n "__fish_sandbox_using_subcommand ps" -s l -l latest -d 'The one that was made last'
complete -c sandbox -n "__fish_sandbox_using_subcommand ps" -l no-trunc -d 'Whole IDs and commands'
complete -c sandbox -n "__fish_sandbox_using_subcommand ps" -s q -l quiet -d 'IDs only'
complete -c sandbox -n "__fish_sandbox_using_subcommand ps" -s s -l size -d 'Also how much was written to each, as a layer over its image'
complete -c sandbox -n "__fish_sandbox_using_subcommand ps" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand logs" -l since -d 'Only what was said from then on: a time as 2026-11-24T21:00:00Z, seconds since 1970, or how long ago, as 10m' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand logs" -l until -d 'Only what was said until then' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand logs" -s n -l tail -d 'Only the last N lines; all: every line' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand logs" -s f -l follow -d 'Go on with what it says, until its end'
complete -c sandbox -n "__fish_sandbox_using_subcommand logs" -s t -l timestamps -d 'Begin each line with its time'
complete -c sandbox -n "__fish_sandbox_using_subcommand logs" -l raw -d 'Leave control characters as they are'
complete -c sandbox -n "__fish_sandbox_using_subcommand logs" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand attach" -l sig-proxy -d 'false: signals to this command are not passed on, and end it' -r -f -a "true\t''
false\t''"
complete -c sandbox -n "__fish_sandbox_using_subcommand attach" -l detach-keys -d 'What to type to leave it; without it what run or create said, or ctrl-p,ctrl-q' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand attach" -l no-stdin -d 'Leave its stdin alone'
complete -c sandbox -n "__fish_sandbox_using_subcommand attach" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand wait" -l condition -d 'What to wait for' -r -f -a "stopped\t'It does not run'
exited\t'The same'
running\t'It runs; no code is printed'
removed\t'It is gone'"
complete -c sandbox -n "__fish_sandbox_using_subcommand wait" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand events" -l since -d 'Also what happened since then: a date, seconds since 1970, or how long ago (10m)' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand events" -l until -d 'And nothing after that; the command ends then' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand events" -s f -l filter -d 'Only those that fit: event, container, image or label, with = and a value' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand events" -l format -d 'json, or a template such as \'{{.Action}} {{.Actor.Attributes.name}}\'' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand events" -l json -d 'Print one JSON object a line'
complete -c sandbox -n "__fish_sandbox_using_subcommand events" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand container; and not __fish_seen_subcommand_from prune" -s h -l help -d 'Print help'
complete -c sandbox -n "__fish_sandbox_using_subcommand container; and not __fish_seen_subcommand_from prune" -f -a "prune" -d 'Remove all sandboxes that do not run, and what they wrote'
complete -c sandbox -n "__fish_sandbox_using_subcommand container; and __fish_seen_subcommand_from prune" -l filter -d 'Only those that fit; until=24h, label=KEY[=VALUE], and what sandbox ps --filter knows' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand container; and __fish_seen_subcommand_from prune" -s f -l force -d 'Do not ask'
complete -c sandbox -n "__fish_sandbox_using_subcommand container; and __fish_seen_subcommand_from prune" -s h -l help -d 'Print help'
complete -c sandbox -n "__fish_sandbox_using_subcommand doctor" -l json -d 'Print one JSON array'
complete -c sandbox -n "__fish_sandbox_using_subcommand doctor" -l print-apparmor-profile -d 'Print the AppArmor profile that lets this program make user namespaces, and nothing else'
complete -c sandbox -n "__fish_sandbox_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand policy; and not __fish_seen_subcommand_from list show check diff" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand policy; and not __fish_seen_subcommand_from list show check diff" -f -a "list" -d 'List every policy that can be named, and where it comes from'
complete -c sandbox -n "__fish_sandbox_using_subcommand policy; and not __fish_seen_subcommand_from list show check diff" -f -a "show" -d 'Print a policy with everything it includes'
complete -c sandbox -n "__fish_sandbox_using_subcommand policy; and not __fish_seen_subcommand_from list show check diff" -f -a "check" -d 'Say whether a policy file is right'
complete -c sandbox -n "__fish_sandbox_using_subcommand policy; and not __fish_seen_subcommand_from list show check diff" -f -a "diff" -d 'Show in what two policies differ'
complete -c sandbox -n "__fish_sandbox_using_subcommand policy; and __fish_seen_subcommand_from list" -l json -d 'Print one JSON array'
complete -c sandbox -n "__fish_sandbox_using_subcommand policy; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c sandbox -n "__fish_sandbox_using_subcommand policy; and __fish_seen_subcommand_from show" -l json -d 'Print JSON, not TOML'
complete -c sandbox -n "__fish_sandbox_using_subcommand policy; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c sandbox -n "__fish_sandbox_using_subcommand policy; and __fish_seen_subcommand_from check" -s h -l help -d 'Print help'
complete -c sandbox -n "__fish_sandbox_using_subcommand policy; and __fish_seen_subcommand_from diff" -s h -l help -d 'Print help'
complete -c sandbox -n "__fish_sandbox_using_subcommand login" -s u -l username -d 'The user; asked for if not given' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand login" -l tls-verify -d 'Check the registry\'s certificate: true or false [default: as registries.conf says]' -r -f -a "true\t''
false\t''"
complete -c sandbox -n "__fish_sandbox_using_subcommand login" -l authfile -d 'Take passwords from this file, and no other' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand login" -l cert-dir -d 'Take the registry\'s authorities (*.crt) and our certificate for it (*.cert, *.key) from this directory' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand login" -l password-stdin -d 'Read the password from stdin'
complete -c sandbox -n "__fish_sandbox_using_subcommand login" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand logout" -l authfile -d 'Forget what is in this file, and in no other' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand logout" -s a -l all -d 'Forget all of them'
complete -c sandbox -n "__fish_sandbox_using_subcommand logout" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand images" -s f -l filter -d 'Only images that fit: reference=PATTERN, label=KEY[=VALUE], dangling=true|false, before=IMAGE or since=IMAGE' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand images" -l format -d 'Print `json`, one object a line, or a template such as \'{{.ID}} {{.Repository}}:{{.Tag}}\'' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand images" -s q -l quiet -d 'Print IDs only'
complete -c sandbox -n "__fish_sandbox_using_subcommand images" -l digests -d 'Print digests of manifests, too'
complete -c sandbox -n "__fish_sandbox_using_subcommand images" -l no-trunc -d 'Print whole IDs'
complete -c sandbox -n "__fish_sandbox_using_subcommand images" -s h -l help -d 'Print help'
complete -c sandbox -n "__fish_sandbox_using_subcommand tag" -s h -l help -d 'Print help'
complete -c sandbox -n "__fish_sandbox_using_subcommand untag" -s h -l help -d 'Print help'
complete -c sandbox -n "__fish_sandbox_using_subcommand rmi" -s f -l force -d 'Also an image with several names, or one that is damaged; never one that a sandbox uses. One that is not there is no error'
complete -c sandbox -n "__fish_sandbox_using_subcommand rmi" -s h -l help -d 'Print help'
complete -c sandbox -n "__fish_sandbox_using_subcommand history" -l format -d 'Print `json`, one object a line, or a template' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand history" -s q -l quiet -d 'Print IDs only'
complete -c sandbox -n "__fish_sandbox_using_subcommand history" -l no-trunc -d 'Print whole commands'
complete -c sandbox -n "__fish_sandbox_using_subcommand history" -s h -l help -d 'Print help'
complete -c sandbox -n "__fish_sandbox_using_subcommand inspect" -l type -d 'Only what is a container (or sandbox, which is the same) or an image' -r -f -a "container\t''
sandbox\t''
image\t''"
complete -c sandbox -n "__fish_sandbox_using_subcommand inspect" -s f -l format -d 'Print `json`, one line, or a template such as \'{{.Config.Env}}\' or \'{{.State.Status}}\'' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand inspect" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand df" -l format -d 'Print `json`, one object a line, or a template' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand df" -s h -l help -d 'Print help'
complete -c sandbox -n "__fish_sandbox_using_subcommand prune" -l filter -d 'Only images that fit: until=24h or until=2026-01-31, label=KEY[=VALUE] or label!=KEY[=VALUE]' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand prune" -s a -l all -d 'Every image that no sandbox uses'
complete -c sandbox -n "__fish_sandbox_using_subcommand prune" -l dry-run -d 'Say what would be removed, and remove nothing'
complete -c sandbox -n "__fish_sandbox_using_subcommand prune" -s f -l force -d 'Do not ask'
complete -c sandbox -n "__fish_sandbox_using_subcommand prune" -s h -l help -d 'Print help'
complete -c sandbox -n "__fish_sandbox_using_subcommand gc" -l dry-run -d 'Say what would be removed, and remove nothing'
complete -c sandbox -n "__fish_sandbox_using_subcommand gc" -s h -l help -d 'Print help'
complete -c sandbox -n "__fish_sandbox_using_subcommand tree" -l format -d 'Print `json`: an array of layers, each with what lies above it' -r -f -a "json\t''"
complete -c sandbox -n "__fish_sandbox_using_subcommand tree" -l no-trunc -d 'Print whole digests'
complete -c sandbox -n "__fish_sandbox_using_subcommand tree" -s h -l help -d 'Print help'
complete -c sandbox -n "__fish_sandbox_using_subcommand load" -s i -l input -d 'The tar of docker save or in the OCI layout, plain or compressed; - and nothing are the standard input' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand load" -l platform -d 'The one to take, where there are several: os/arch[/variant]' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand load" -l squash-ids -d 'Give files of ids that you do not have to root, instead of refusing the image'
complete -c sandbox -n "__fish_sandbox_using_subcommand load" -s q -l quiet -d 'Print nothing but errors'
complete -c sandbox -n "__fish_sandbox_using_subcommand load" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand save" -s o -l output -d 'A file, or for oci-dir a directory; or a place: oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE. Nothing is the standard output' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand save" -l format -d 'docker-archive (without saying), oci-archive or oci-dir' -r -f -a "docker-archive\t''
oci-archive\t''
oci-dir\t''"
complete -c sandbox -n "__fish_sandbox_using_subcommand save" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand import" -s c -l change -d 'Change how the image is to be run, by an instruction of a Dockerfile; may be said several times' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand import" -s m -l message -d 'What to say in the image\'s history' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand import" -l platform -d 'The platform that it is for, if not this machine\'s: os/arch[/variant]' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand import" -l from-host -d 'Take files and directories of the host instead of a tar; may be said several times' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand import" -l squash-ids -d 'Give files of ids that you do not have to root, instead of refusing the image'
complete -c sandbox -n "__fish_sandbox_using_subcommand import" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand diff" -l format -d 'json, or a template such as \'{{.Path}}\'' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand diff" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand pull" -l platform -d 'Which of an image for several platforms: OS/ARCH or OS/ARCH/VARIANT [default: this machine\'s]' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand pull" -l tls-verify -d 'Check the registry\'s certificate: true or false [default: as registries.conf says]' -r -f -a "true\t''
false\t''"
complete -c sandbox -n "__fish_sandbox_using_subcommand pull" -l authfile -d 'Take passwords from this file, and no other' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand pull" -l cert-dir -d 'Take the registry\'s authorities (*.crt) and our certificate for it (*.cert, *.key) from this directory' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand pull" -l squash-ids -d 'Give files of ids that you do not have to root, instead of refusing the image'
complete -c sandbox -n "__fish_sandbox_using_subcommand pull" -s q -l quiet -d 'Print nothing but the ID'
complete -c sandbox -n "__fish_sandbox_using_subcommand pull" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand push" -l digestfile -d 'Write the digest to this file' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand push" -l tls-verify -d 'Check the registry\'s certificate: true or false [default: as registries.conf says]' -r -f -a "true\t''
false\t''"
complete -c sandbox -n "__fish_sandbox_using_subcommand push" -l authfile -d 'Take passwords from this file, and no other' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand push" -l cert-dir -d 'Take the registry\'s authorities (*.crt) and our certificate for it (*.cert, *.key) from this directory' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand push" -s q -l quiet -d 'Print nothing but the digest'
complete -c sandbox -n "__fish_sandbox_using_subcommand push" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand search" -l limit -d 'Not more than so many' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand search" -l format -d 'A table, or JSON' -r -f -a "table\t''
json\t''"
complete -c sandbox -n "__fish_sandbox_using_subcommand search" -l tls-verify -d 'Check the registry\'s certificate: true or false [default: as registries.conf says]' -r -f -a "true\t''
false\t''"
complete -c sandbox -n "__fish_sandbox_using_subcommand search" -l authfile -d 'Take passwords from this file, and no other' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand search" -l cert-dir -d 'Take the registry\'s authorities (*.crt) and our certificate for it (*.cert, *.key) from this directory' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand search" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and not __fish_seen_subcommand_from tag untag history inspect df prune gc tree load save import diff pull push search images ls rmi rm" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and not __fish_seen_subcommand_from tag untag history inspect df prune gc tree load save import diff pull push search images ls rmi rm" -f -a "tag" -d 'Give an image one more name'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and not __fish_seen_subcommand_from tag untag history inspect df prune gc tree load save import diff pull push search images ls rmi rm" -f -a "untag" -d 'Take names away; the images stay'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and not __fish_seen_subcommand_from tag untag history inspect df prune gc tree load save import diff pull push search images ls rmi rm" -f -a "history" -d 'Show how an image came to be, the newest step first'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and not __fish_seen_subcommand_from tag untag history inspect df prune gc tree load save import diff pull push search images ls rmi rm" -f -a "inspect" -d 'Print all that is known of sandboxes and images, as JSON'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and not __fish_seen_subcommand_from tag untag history inspect df prune gc tree load save import diff pull push search images ls rmi rm" -f -a "df" -d 'Show how much room images take, and what can be had back'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and not __fish_seen_subcommand_from tag untag history inspect df prune gc tree load save import diff pull push search images ls rmi rm" -f -a "prune" -d 'Remove images without a name, and what nothing refers to'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and not __fish_seen_subcommand_from tag untag history inspect df prune gc tree load save import diff pull push search images ls rmi rm" -f -a "gc" -d 'Remove blobs and layers that no image refers to'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and not __fish_seen_subcommand_from tag untag history inspect df prune gc tree load save import diff pull push search images ls rmi rm" -f -a "tree" -d 'Show which images share which layers'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and not __fish_seen_subcommand_from tag untag history inspect df prune gc tree load save import diff pull push search images ls rmi rm" -f -a "load" -d 'Take images out of an archive or a directory into the store'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and not __fish_seen_subcommand_from tag untag history inspect df prune gc tree load save import diff pull push search images ls rmi rm" -f -a "save" -d 'Write images into an archive or a directory'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and not __fish_seen_subcommand_from tag untag history inspect df prune gc tree load save import diff pull push search images ls rmi rm" -f -a "import" -d 'Make an image of a tar or of files of the host'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and not __fish_seen_subcommand_from tag untag history inspect df prune gc tree load save import diff pull push search images ls rmi rm" -f -a "diff" -d 'Say what a kept or running sandbox changed'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and not __fish_seen_subcommand_from tag untag history inspect df prune gc tree load save import diff pull push search images ls rmi rm" -f -a "pull" -d 'Bring images from registries into the store'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and not __fish_seen_subcommand_from tag untag history inspect df prune gc tree load save import diff pull push search images ls rmi rm" -f -a "push" -d 'Send an image to a registry'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and not __fish_seen_subcommand_from tag untag history inspect df prune gc tree load save import diff pull push search images ls rmi rm" -f -a "search" -d 'Look for images by a word'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and not __fish_seen_subcommand_from tag untag history inspect df prune gc tree load save import diff pull push search images ls rmi rm" -f -a "images" -d 'List images'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and not __fish_seen_subcommand_from tag untag history inspect df prune gc tree load save import diff pull push search images ls rmi rm" -f -a "ls" -d 'List images'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and not __fish_seen_subcommand_from tag untag history inspect df prune gc tree load save import diff pull push search images ls rmi rm" -f -a "rmi" -d 'Remove images, or names of images that have others'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and not __fish_seen_subcommand_from tag untag history inspect df prune gc tree load save import diff pull push search images ls rmi rm" -f -a "rm" -d 'Remove images, or names of images that have others'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from tag" -s h -l help -d 'Print help'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from untag" -s h -l help -d 'Print help'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from history" -l format -d 'Print `json`, one object a line, or a template' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from history" -s q -l quiet -d 'Print IDs only'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from history" -l no-trunc -d 'Print whole commands'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from history" -s h -l help -d 'Print help'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from inspect" -l type -d 'Only what is a container (or sandbox, which is the same) or an image' -r -f -a "container\t''
sandbox\t''
image\t''"
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from inspect" -s f -l format -d 'Print `json`, one line, or a template such as \'{{.Config.Env}}\' or \'{{.State.Status}}\'' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from inspect" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from df" -l format -d 'Print `json`, one object a line, or a template' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from df" -s h -l help -d 'Print help'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from prune" -l filter -d 'Only images that fit: until=24h or until=2026-01-31, label=KEY[=VALUE] or label!=KEY[=VALUE]' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from prune" -s a -l all -d 'Every image that no sandbox uses'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from prune" -l dry-run -d 'Say what would be removed, and remove nothing'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from prune" -s f -l force -d 'Do not ask'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from prune" -s h -l help -d 'Print help'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from gc" -l dry-run -d 'Say what would be removed, and remove nothing'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from gc" -s h -l help -d 'Print help'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from tree" -l format -d 'Print `json`: an array of layers, each with what lies above it' -r -f -a "json\t''"
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from tree" -l no-trunc -d 'Print whole digests'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from tree" -s h -l help -d 'Print help'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from load" -s i -l input -d 'The tar of docker save or in the OCI layout, plain or compressed; - and nothing are the standard input' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from load" -l platform -d 'The one to take, where there are several: os/arch[/variant]' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from load" -l squash-ids -d 'Give files of ids that you do not have to root, instead of refusing the image'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from load" -s q -l quiet -d 'Print nothing but errors'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from load" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from save" -s o -l output -d 'A file, or for oci-dir a directory; or a place: oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE. Nothing is the standard output' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from save" -l format -d 'docker-archive (without saying), oci-archive or oci-dir' -r -f -a "docker-archive\t''
oci-archive\t''
oci-dir\t''"
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from save" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from import" -s c -l change -d 'Change how the image is to be run, by an instruction of a Dockerfile; may be said several times' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from import" -s m -l message -d 'What to say in the image\'s history' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from import" -l platform -d 'The platform that it is for, if not this machine\'s: os/arch[/variant]' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from import" -l from-host -d 'Take files and directories of the host instead of a tar; may be said several times' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from import" -l squash-ids -d 'Give files of ids that you do not have to root, instead of refusing the image'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from import" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from diff" -l format -d 'json, or a template such as \'{{.Path}}\'' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from diff" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from pull" -l platform -d 'Which of an image for several platforms: OS/ARCH or OS/ARCH/VARIANT [default: this machine\'s]' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from pull" -l tls-verify -d 'Check the registry\'s certificate: true or false [default: as registries.conf says]' -r -f -a "true\t''
false\t''"
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from pull" -l authfile -d 'Take passwords from this file, and no other' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from pull" -l cert-dir -d 'Take the registry\'s authorities (*.crt) and our certificate for it (*.cert, *.key) from this directory' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from pull" -l squash-ids -d 'Give files of ids that you do not have to root, instead of refusing the image'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from pull" -s q -l quiet -d 'Print nothing but the ID'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from pull" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from push" -l digestfile -d 'Write the digest to this file' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from push" -l tls-verify -d 'Check the registry\'s certificate: true or false [default: as registries.conf says]' -r -f -a "true\t''
false\t''"
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from push" -l authfile -d 'Take passwords from this file, and no other' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from push" -l cert-dir -d 'Take the registry\'s authorities (*.crt) and our certificate for it (*.cert, *.key) from this directory' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from push" -s q -l quiet -d 'Print nothing but the digest'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from push" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from search" -l limit -d 'Not more than so many' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from search" -l format -d 'A table, or JSON' -r -f -a "table\t''
json\t''"
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from search" -l tls-verify -d 'Check the registry\'s certificate: true or false [default: as registries.conf says]' -r -f -a "true\t''
false\t''"
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from search" -l authfile -d 'Take passwords from this file, and no other' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from search" -l cert-dir -d 'Take the registry\'s authorities (*.crt) and our certificate for it (*.cert, *.key) from this directory' -r -F
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from search" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from images" -s f -l filter -d 'Only images that fit: reference=PATTERN, label=KEY[=VALUE], dangling=true|false, before=IMAGE or since=IMAGE' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from images" -l format -d 'Print `json`, one object a line, or a template such as \'{{.ID}} {{.Repository}}:{{.Tag}}\'' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from images" -s q -l quiet -d 'Print IDs only'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from images" -l digests -d 'Print digests of manifests, too'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from images" -l no-trunc -d 'Print whole IDs'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from images" -s h -l help -d 'Print help'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from ls" -s f -l filter -d 'Only images that fit: reference=PATTERN, label=KEY[=VALUE], dangling=true|false, before=IMAGE or since=IMAGE' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from ls" -l format -d 'Print `json`, one object a line, or a template such as \'{{.ID}} {{.Repository}}:{{.Tag}}\'' -r
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from ls" -s q -l quiet -d 'Print IDs only'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from ls" -l digests -d 'Print digests of manifests, too'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from ls" -l no-trunc -d 'Print whole IDs'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from ls" -s h -l help -d 'Print help'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from rmi" -s f -l force -d 'Also an image with several names, or one that is damaged; never one that a sandbox uses. One that is not there is no error'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from rmi" -s h -l help -d 'Print help'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from rm" -s f -l force -d 'Also an image with several names, or one that is damaged; never one that a sandbox uses. One that is not there is no error'
complete -c sandbox -n "__fish_sandbox_using_subcommand image; and __fish_seen_subcommand_from rm" -s h -l help -d 'Print help'
