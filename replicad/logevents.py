"""The kinds of events that the daemon logs: their stable ids for the journal, their meaning, and which ones repeat.

Owns the catalogue, which the journal's fields, the rate limit of repeats and the man page are made from. An id, once
published, stays with its event: operators search and alert by it (journalctl MESSAGE_ID=...).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """An event's id (sd-id128(3)), what it tells, and whether it comes again and again while its cause lasts."""

    message_id: str
    meaning: str
    repeats: bool = False


EVENTS: dict[str, Kind] = {
    "starting": Kind("5a93c9359abb467ca40e007d46eac1a0", "The node has read its log from disk and begins."),
    "slow_loop": Kind(
        "a591b01e39c240b58576282708d8c1b2", "uvloop is not installed: the node is slower than it need be."
    ),
    "listening": Kind("b2a2d66e959d428db4eacfa49da586cb", "It takes calls at its address."),
    "open": Kind("f9a9f6db87e24c5ebd9363510a7a89fa", "A master's epoch is open: it takes posts."),
    "read-only": Kind(
        "3f8ea3e672c6491a8ad9c490ced84de5",
        "A master's disk is full: it refuses posts, serves reads, and tries again by itself.",
        repeats=True,
    ),
    "deposed": Kind(
        "90d13f61878941ee8249bdaeabe7f7f6",
        "A node has promised a higher epoch to another master: this one takes no more posts.",
    ),
    "asks": Kind("d590b354053b4c09aa818749270cbd01", "The node asks the voters whether it may be the master."),
    "follows_instead": Kind(
        "ce43bbd4b62e43f4aeba7a41e392df8e",
        "The node asked to be the master, and is a worker; the text says why.",
        repeats=True,
    ),
    "handing-over": Kind("0711e4dd20764860a47d3dc98162ac06", "A master takes no posts while another node becomes it."),
    "takes_over": Kind("347315c87a0743feb400b613811aba1f", "The master wants this worker in its place."),
    "promote": Kind("30bc375fb6ea43f89a440d8a46326aed", "An operator, PRINCIPAL, wants this node to be the master."),
    "switchover": Kind(
        "a91384d9d925427b9672c879adebd21a", "An operator, PRINCIPAL, wants another node to be the master."
    ),
    "following": Kind("c966c1d8d25445d6ba59a70484fe2772", "A worker follows a master.", repeats=True),
    "follows": Kind(
        "eb12d804128e47428b6869c4b624e3d1",
        "A master's worker follows it: its log agrees with the master's up to SIZE.",
        repeats=True,
    ),
    "unreachable": Kind(
        "240c975c641b4c6e874973228d25bc9e",
        "A worker can't be reached at its address; it is dialled again and again.",
        repeats=True,
    ),
    "lost": Kind("4089fc6336dd4297b77492837b325d64", "The stream to a peer has ended.", repeats=True),
    "suspected": Kind(
        "f8e298191c6c436e9ee25b50cbaf26fd", "A peer is silent for longer than timeouts.suspect.", repeats=True
    ),
    "refused": Kind(
        "7288e90055d4435d87197a58a1da77c1",
        "A peer's frame or a whole peer was refused; REASON says what failed, and nothing was changed by it.",
        repeats=True,
    ),
    "misplaced": Kind(
        "c8ff257ca76b4814b094195fa35cb88e",
        "Another node than the config says answers at a peer's address.",
        repeats=True,
    ),
    "fork": Kind(
        "de26dd3ac50741cc996011d2d6f00db8",
        "A peer's log parts from this one below what is committed: one of two data folders is not of this log.",
        repeats=True,
    ),
    "fetch": Kind(
        "0361916c23d34f7cb5ece5e92bf64bdb", "An opening master fetches the tail of a peer that is ahead.", repeats=True
    ),
    "voters": Kind(
        "5c0f8e3b7d6a4b0f9a2e6d41c7b89f35",
        "An opening master can't go on: its log names voters that may still be in force, and its config lacks them.",
    ),
    "align": Kind(
        "857891521e984a49a2f30c7af2fd9353",
        "A worker has records that the master has not; it is told to put them aside.",
        repeats=True,
    ),
    "quarantined": Kind(
        "412426a79bcf409b9355ba15f34d0664",
        "Records that never were committed were put aside, into the folder quarantine of the data folder.",
    ),
    "reloaded": Kind("e18e2101b978416e9dd7f62a3a6bb489", "A reload took what may change live."),
    "needs_restart": Kind(
        "b3cc07fe79df47b98ae044ceb1ab3292",
        "A key of the reloaded config is not taken before a restart; KEY says which.",
    ),
    "data_loss_accepted": Kind(
        "701bbab7f5624bc2a8f2e1658649a7bb",
        "A master begins without quorums of earlier voters, because an operator has accepted that data is lost.",
    ),
    "damaged": Kind(
        "2a3053aeb5264c8dbcf7b377ba1ab15f",
        "What was read from the disk is not what was written, at OFFSET; it is not given out.",
    ),
    "repaired": Kind(
        "fa60bff52f9a464da285545414a43d88",
        "RECORDS from OFFSET on, which were damaged, were replaced by a copy that was proven.",
    ),
    "not_repaired": Kind(
        "59cae9baae2d4107add11bd7d25b89bb",
        "What is damaged at OFFSET can't be replaced now; it is tried again.",
        repeats=True,
    ),
    "scrubbed": Kind(
        "38a135fef7464d3c9f844909121ffea2", "The whole log was looked over; FAULTS were found.", repeats=True
    ),
    "scrub_ended": Kind("7b54b7f442f843758c73a497703301bb", "A scrub could not go on beyond what is damaged."),
    "unfit": Kind(
        "5639316dae594f8dbfb16ae5c72c46d3",
        "This node was to become the master, and is not fit to: its log is damaged, or its disk is full.",
    ),
    "no_room": Kind(
        "56ac83eb2b0e452aa70d212dcb083abf",
        "A master can't open: there is no room on its disk for the epoch's first record; it is tried again.",
        repeats=True,
    ),
    "reload_refused": Kind(
        "cf629b2b7ced444fa19bced7b05fc8cd", "A fault of the reloaded config, of which nothing was taken."
    ),
    "rekeyed": Kind(
        "d09f7f84381547b7b4f83a58f9d4e210",
        "A reload found another key in the key file: the node signs with KEY_ID from now on, not with FORMER_KEY_ID.",
    ),
    "key_refused": Kind(
        "0a16372103cf44568829f0a003eb0a92",
        "The key file holds no key that the reloaded config believes now; the node goes on signing with KEY_ID.",
    ),
    "call_failed": Kind(
        "0ab05fb2786b452daab5ffa0953bf14c", "A call failed with a bug of ours; the caller was told 500."
    ),
    "open_to_all": Kind(
        "05c133a63b234569918d4c039973ea9d",
        "The node asks for no token: without tokens_file and AUTH_TOKEN, whoever is on its machine may call it.",
    ),
    "shut_to_all": Kind(
        "6710b3997c8e4c5bbb5c025a0e6055aa",
        "With TLS, and without tokens_file and AUTH_TOKEN: no client may call, not even one with a certificate.",
    ),
    "unauthorized": Kind(
        "d07abb1fb4e14f94b08d87eecd517263",
        "A call was refused for its token or certificate; REASON is missing, wrong, unknown, expired or revoked.",
        repeats=True,
    ),
    "call_ended": Kind(
        "4a62add0d4ee44258782b0bd4792472d",
        "An open stream was ended: its caller's token was withdrawn or has expired, or lost its role.",
        repeats=True,
    ),
    "stalled": Kind(
        "8854e5895baa4a7da4e9207e0f0ca834",
        "A stream whose client took nothing of it for timeouts.stalled was cut off.",
        repeats=True,
    ),
    "certificate_taken": Kind(
        "4a4019c179564bba93d0493f40afd887",
        "The certificate, its key or the CA bundle have changed, and hold from now on.",
    ),
    "certificate_refused": Kind(
        "613ceaf1c161497ca616db4d278d367f",
        "What is in the files of tls now can't be taken; the certificate from before goes on.",
        repeats=True,
    ),
    "certificate_ends": Kind(
        "cd9235aa774c421082f917ddb26304cc", "The certificate, or a CA that it rests on, ends soon, or has expired."
    ),
    "not_started": Kind("4bda738a035a4705bc4fabac86cdc44f", "Why the node did not start."),
    "fatal": Kind(
        "3ab4dafe490c485facc6400d0b330cb1", "The node stops for a fault, so as not to go on with what it can't trust."
    ),
    "stopping": Kind("98635a641d4d4ba28b4d7553e51e8da1", "The node has begun to stop."),
    "stopped": Kind("aeb7613a70c74f5396598336a1812e02", "It has stopped, and its log is closed."),
    "library": Kind("e63f6aa06a8c410695e25d01c962e8af", "A warning or error of a library; LOGGER says which."),
}

CRITICAL = frozenset({"fatal"})  # syslog's crit rather than err: the service is going down
