# shellcheck shell=bash
# Root file systems of Debian releases, made by mmdebstrap and kept as tar files in build/roots. To be sourced in the
# project's folder.
#
# Owns what is in a root and when a kept one is too old. Must not know what is done in it.

roots=$PWD/build/roots

debian_tools() {
    local packages=(mmdebstrap)
    [ "$(id -u)" -eq 0 ] || packages+=(uidmap) # for the user namespace
    scripts/apt_install.sh "${packages[@]}" >&2
}

# The Debian mirror in this machine's own apt sources; nothing where they name none: mmdebstrap then takes its default.
debian_mirror() {
    apt-get indextargets --format '$(ORIGIN)/$(LABEL) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        awk '$1 == "Debian/Debian" { print $2; exit }'
}

# keep_root RELEASE NAME KEY MMDEBSTRAP-ARGUMENTS...: print the tar file NAME-RELEASE-HASH, made where it is missing.
# KEY is all that the root depends on; another one's tar file goes.
keep_root() {
    local release=$1 name=$2 key=$3 tar mirror
    shift 3
    tar=$roots/$name-$release-$(sha256sum <<<"$key" | cut -c 1-12).tar
    if [ ! -e "$tar" ]; then
        debian_tools
        mkdir -p "$roots"
        rm -f "$roots/$name-$release-"*.tar
        mirror=$(debian_mirror)
        echo "making a root of Debian $release ($name)" >&2
        mmdebstrap --quiet --format=tar "$@" "$release" "$tar.new" ${mirror:+"$mirror"} >&2
        mv "$tar.new" "$tar"
    fi
    echo "$tar"
}

# build_root RELEASE [DEBIAN [NAME]]: a root with all that builds and checks the packages of the folder DEBIAN.
build_root() {
    local debian=${2:-$PWD/packaging/debian}
    keep_root "$1" "${3:-build}" "$(cat "$debian/control")" --variant=buildd --include=lintian \
        --customize-hook='mkdir -p "$1/tmp/replicad/debian"' \
        --customize-hook="sync-in $debian /tmp/replicad/debian" \
        --customize-hook='chroot "$1" apt-get build-dep --yes --quiet --no-install-recommends /tmp/replicad' \
        --customize-hook='rm -r "$1/tmp/replicad"' \
        --customize-hook='chroot "$1" useradd builder'
}

# in_root RELEASE TAR MMDEBSTRAP-HOOKS...: run the hooks on a throw-away copy of a root, with /proc and the like mounted.
in_root() {
    local release=$1 tar=$2 without=""
    shift 2
    [ "$(id -u)" -eq 0 ] || without="--exclude='./dev/*'" # only root may make device nodes, and mmdebstrap brings its own
    mmdebstrap --quiet --variant=custom --format=null \
        --skip=update,setup,cleanup,output/mknod \
        --setup-hook="tar --extract --numeric-owner $without --file='$tar' --directory=\"\$1\"" "$@" "$release"
}

# host_root RELEASE: what a machine with systemd and SSH is booted from. It has nothing that replicad depends on; a package
# that lacks a dependency is not to be helped. Keys and identity are made at its first boot.
host_root() {
    keep_root "$1" host "$(declare -f host_root)" --variant=minbase \
        --include=systemd,systemd-sysv,dbus,libpam-systemd,iproute2,procps,ca-certificates,openssh-server \
        --customize-hook='rm -f "$1"/etc/ssh/ssh_host_* "$1/etc/hostname" "$1/etc/resolv.conf"; : >"$1/etc/machine-id"' \
        --customize-hook='mkdir -p "$1/etc/systemd/system/ssh.service.d" && printf "%s\n" "[Service]" "ExecStartPre=" \
            "ExecStartPre=/usr/bin/ssh-keygen -A" "ExecStartPre=/usr/sbin/sshd -t" \
            >"$1/etc/systemd/system/ssh.service.d/keys.conf"'
}
