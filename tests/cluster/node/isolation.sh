# Network, folders and cgroups that are the cluster's own. Sourced by node.sh.
# shellcheck shell=bash disable=SC2154 # variables of node.sh

isolate() {
    isolate_folders
    isolate_network
    make_cgroups
}

isolate_folders() {
    local setting
    mount --no-mtab -t tmpfs -o mode=755 tmpfs /run
    mkdir /run/{kept,upper,work,sysctl}
    # some paths under /var are fixed in the kubelet: copy on write, but for our own folder
    mount --bind "$dir" /run/kept
    mount -t overlay overlay -o lowerdir=/var,upperdir=/run/upper,workdir=/run/work /var
    mount --bind /run/kept "$dir"
    for setting in vm/overcommit_memory=1 kernel/panic=10 kernel/panic_on_oops=1; do
        # the kubelet would set these for the whole machine: show it that they are set
        echo "${setting#*=}" >"/run/sysctl/$(basename "${setting%=*}")"
        mount --bind "/run/sysctl/$(basename "${setting%=*}")" "/proc/sys/${setting%=*}"
    done
    # no names beyond these; a lookup fails at once rather than after ten seconds
    printf '127.0.0.1 localhost %s\n' "$node" >/run/hosts
    : >/run/resolv.conf
    mount --bind /run/hosts /etc/hosts
    if [ -e /etc/resolv.conf ]; then mount --bind /run/resolv.conf /etc/resolv.conf; fi
    mount --make-rshared /
}

isolate_network() {
    hostname "$node"
    ip link set lo up
    ip link add node0 type veth peer name node0-peer # both ends here: a carrier, so that the route holds
    ip link set node0-peer up
    ip link set node0 up
    ip address add "$node_ip/24" dev node0
    ip route add default via 10.89.0.1 dev node0
    echo 1 >/proc/sys/net/ipv4/ip_forward
    if [ -e /proc/sys/net/bridge/bridge-nf-call-iptables ]; then
        echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables
    fi
}

make_cgroups() {
    local root=/sys/fs/cgroup controller file
    if [ -e $root/cgroup.controllers ]; then # v2: written from its documentation, never run
        mkdir "$root/$CLUSTER_CGROUP"
        tr ' ' '\n' <$root/cgroup.controllers | while read -r controller; do
            echo "+$controller" >$root/cgroup.subtree_control
            echo "+$controller" >"$root/$CLUSTER_CGROUP/cgroup.subtree_control"
        done
        return
    fi
    for controller in cpu cpuacct cpuset memory devices freezer blkio pids systemd hugetlb; do
        if [ -d "$root/$controller" ]; then mkdir -p "$root/$controller/$CLUSTER_CGROUP"; fi
    done
    for file in cpuset.cpus cpuset.mems; do # a new cpuset is empty, and then no process may join it
        if [ -e "$root/cpuset/$file" ]; then
            cat "$root/cpuset/$file" >"$root/cpuset/$CLUSTER_CGROUP/$file"
        fi
    done
}
