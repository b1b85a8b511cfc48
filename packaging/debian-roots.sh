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
        rm -rf "$roots/$name-$release-"* # the folders that such were unpacked to as well
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

# bootable_root RELEASE NAME KEY PACKAGES MMDEBSTRAP-ARGUMENTS...: what a machine with systemd and SSH is booted from, with
# PACKAGES (",python3,sudo") besides. Keys and identity are made at its first boot.
bootable_root() {
    local release=$1 name=$2 key=$3 packages=$4
    shift 4
    keep_root "$release" "$name" "$key $packages $(declare -f bootable_root)" --variant=minbase \
        --include="systemd,systemd-sysv,dbus,libpam-systemd,iproute2,procps,ca-certificates,openssh-server$packages" "$@" \
        --customize-hook='rm -f "$1"/etc/ssh/ssh_host_* "$1/etc/hostname" "$1/etc/resolv.conf"; : >"$1/etc/machine-id"' \
        --customize-hook='mkdir -p "$1/etc/systemd/system/ssh.service.d" && printf "%s\n" "[Service]" "ExecStartPre=" \
            "ExecStartPre=/usr/bin/ssh-keygen -A" "ExecStartPre=/usr/sbin/sshd -t" \
            >"$1/etc/systemd/system/ssh.service.d/keys.conf"'
}

# host_root RELEASE: a machine for the tests of the packages. It has nothing that replicad depends on; a package that lacks
# a dependency is not to be helped.
host_root() {
    bootable_root "$1" host "" ""
}

# ansible_root RELEASE: a machine that Ansible is to deploy to, as a server's installer leaves it. It has the package lists
# of the day, and what the packages in build/deb/RELEASE depend on lies in apt's cache, not installed: many hosts are
# installed from one download. Descriptions in other languages are not wanted: each host would download them at each update.
ansible_root() {
    local debs=("$PWD/build/deb/$1"/*.deb) depends deb
    [ -e "${debs[0]}" ] || { echo "build/deb/$1 has no packages: run make deb" >&2; return 1; }
    depends=$(for deb in "${debs[@]}"; do dpkg-deb --field "$deb" Depends Recommends | sed 's/ ([^)]*)//g'; done)
    bootable_root "$1" ansible "$depends $(declare -f ansible_root)" ,python3,python3-apt,sudo,nftables \
        --skip=cleanup/apt --aptopt='Acquire::Languages "none"' \
        --customize-hook='rm -rf "$1"/var/cache/apt/archives/*.deb && mkdir "$1/tmp/debs"' \
        --customize-hook="copy-in ${debs[*]} /tmp/debs" \
        --customize-hook='chroot "$1" sh -c "apt-get install --yes --quiet --download-only /tmp/debs/*.deb"' \
        --customize-hook='rm -r "$1/tmp/debs"'
}
