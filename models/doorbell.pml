/*
 * The doorbell, for the model checker spin. docs/explanation/doorbell.md says what it does and why; what it stands for
 * are djcrf_pg/capture/sql/0001_forwards.sql (the writer), djcrf_pg/changelog/reader.py and djcrf_pg/listener/leadership.py
 * (the leader).
 *
 * The claim: no reachable state sleeps with a committed change that was not read and no ring due. There is no safety
 * poll in here. models/check.py checks the model as it is, and with each of the mistakes that `#ifdef` makes.
 *
 * What it takes for granted of PostgreSQL:
 *  - Transaction ids rise. A snapshot is taken at one moment: its xmax is the latest id that has ended plus one, its
 *    xip are those below that are in progress. It sees what is below xmax, not in xip, and has committed.
 *  - A sequence is outside of snapshots: whatever snapshot a writer holds, it reads the flag as it is.
 *  - NOTIFY is sent by the commit, when the changes are visible, to who listens then, and arrives some time later.
 */

#ifndef WRITERS
#define WRITERS 2           /* sessions that write */
#endif
#ifndef TRANSACTIONS
#define TRANSACTIONS 2      /* of each of them at most, one after the other */
#endif
#ifndef STATEMENTS
#define STATEMENTS 1        /* of each transaction at most */
#endif
#ifndef BUSY
#define BUSY 1              /* how often a leader that slept may find so much to do that it stays awake */
#endif
#ifndef DEATHS
#define DEATHS 1            /* how often the leader is killed or loses its session, and another follows */
#endif

/* A set of transactions is a number with their bits. */
#define BIT(xid) (1 << (xid))
#define BELOW(xid) (BIT(xid) - 1)
#define IDS 14

typedef Snapshot { byte xmax; short xip }
#define SEES(s) (BELOW(s.xmax) & ~s.xip)

inline copy(to, from) { to.xmax = from.xmax; to.xip = from.xip }

/* ---- The server. */

byte next_xid = 1;
byte latest;                /* the latest transaction that has ended */
short running;              /* those in progress */
short changes;              /* those that committed a change */
byte flag;                  /* 0 ring, 1 do not: a leader is awake */
bool listening;             /* LISTEN is in force */
bool due;                   /* a notification is on its way */

inline take_xid(xid) {
    atomic { assert(next_xid <= IDS); xid = next_xid; next_xid++; running = running | BIT(xid) }
}

inline end_xid(xid) {
    running = running & ~BIT(xid);
    latest = (xid > latest -> xid : latest)
}

/* ---- The leader's process. */

short told;                 /* transactions whose changes were read */
bool heard;                 /* it rang since it was muffled */
bool sleeping;              /* it waits, and only a ring will wake it */
bool killed;
byte deaths;

/* The position: what `last` sees was read. In the middle of a window, `target` is its end, and `part` what was read of
 * it; the code has an id there. */
Snapshot last, target;
bool within;
short part;
/* The cursor, which outlives the leader. */
Snapshot saved_last, saved_target;
bool saved_within;
short saved_part;

/* ---- Writers: what the trigger does for each statement. */

byte begun;
/* All writers are alike: of the orders in which they begin, the one by their numbers stands for all. */
#define MAY_WRITE (transactions < TRANSACTIONS && number <= begun)

inline begin() {
    begun = (number == begun -> begun + 1 : begun)
}

inline insert() {
    atomic {
        if
        :: xid == 0 -> take_xid(xid)
        :: else
        fi;
        row = true
    }
}

inline read_flag() {
    atomic {
        rings = rings || flag == 0;
        printf("writer %d: xid %d reads flag %d\n", _pid, xid, flag)
    }
}

proctype Writer(byte number) {
    byte transactions, statements, xid;
    bool row, rings, row_before, rings_before;

    do
    :: atomic { MAY_WRITE && xid == 0 -> begin(); take_xid(xid) }   /* it writes elsewhere */
    :: atomic { MAY_WRITE && statements < STATEMENTS ->
            begin(); statements++; row_before = row; rings_before = rings
        };
#ifdef FLAG_FIRST
        read_flag();
        insert();
#else
        insert();
        read_flag();
#endif
        atomic {
            if
            :: true
            :: row = row_before; rings = rings_before    /* rolled back, to a savepoint or altogether */
            fi;
            row_before = false; rings_before = false
        }
    :: atomic {
            xid != 0 ->
            changes = (row -> changes | BIT(xid) : changes);
            due = due || (rings && listening);
            end_xid(xid);
            printf("writer %d: xid %d ends, committed %d, rings %d\n", _pid, xid, row, rings);
            transactions++; xid = 0; statements = 0; row = false; rings = false
        }
    :: transactions == TRANSACTIONS -> break
    od
}

/* A notification arrives. */
proctype Wire() {
end:
    do
    :: atomic { due -> due = false; heard = true; printf("a ring arrives\n") }
    od
}

/* ---- The leader. */

/* ChangeLog.read() and the delivery: one statement, the rest of the window or a piece of it. */
inline step() {
    atomic {
        xmax = latest + 1;
        xip = running & BELOW(xmax);
        if
        :: !within -> target.xmax = xmax; target.xip = xip
        :: else
        fi;
        found = changes & SEES(target) & ~SEES(last) & ~part;
        if
        :: found & (found - 1) ->       /* more than one: a batch may be full with the first */
            found = found & ~(found - 1);
            within = true; part = part | found
        :: copy(last, target); target.xmax = 0; target.xip = 0;
            within = false; part = 0
        fi;
        told = told | found;
        printf("leader: reads %d with the snapshot xmax %d, xip %d; within a window %d\n", found, xmax, xip, within);
        any = found != 0; found = 0;
#ifndef PENDING_OF_READ
        xip = last.xip;
#endif
        xmax = 0
    }
}

inline save() {
    if
    :: deaths < DEATHS ->               /* nobody will need it otherwise: fewer states */
        copy(saved_last, last); copy(saved_target, target);
        saved_within = within; saved_part = part
    :: else
    fi
}

/* ChangeLog.fall_asleep() */
inline fall_asleep() {
    assert(!within);
#ifdef XID_FIRST
    take_xid(xid);
    set_flag(0);
#else
    set_flag(0);
#ifndef NO_XID
    take_xid(xid);
#endif
#endif
    d_step {
        save();
        if
        :: xid -> end_xid(xid); xid = 0
        :: else
        fi
    }
}

inline set_flag(value) {
    atomic { flag = value; printf("leader: sets the flag to %d\n", value) }
}

inline listen() {
    atomic { listening = true; printf("leader: listens\n") }
}

proctype Leader() {
    byte xid, busy, xmax;
    short found, xip, pending;
    bool any, first;

    do
    ::  {
            /* Listener._lead(): whatever flag it finds, it begins awake. */
            d_step {
                copy(last, saved_last); copy(target, saved_target);
                within = saved_within; part = saved_part;
                if
                :: deaths == DEATHS ->
                    saved_last.xmax = 0; saved_last.xip = 0; saved_target.xmax = 0; saved_target.xip = 0;
                    saved_within = false; saved_part = 0
                :: else
                fi
            }
#ifndef LISTEN_LATE
            listen();
#endif
#ifdef TRUST_FLAG
            step();
            goto asleep;
#endif
awake:      /* Leadership._awake() */
            atomic {
                step();
                if
                :: any -> save()
                :: true
                fi
            };
            if
            :: !any
            :: true -> goto awake
            fi;
            fall_asleep();
asleep:     /* Leadership._asleep() */
            first = true;
            do
            ::
#ifndef MUFFLE_LATE
                heard = false;
#endif
#ifdef NO_LAST_READ
                if
                :: first -> goto wait
                :: else
                fi;
#endif
                step();
                do
                :: within -> step()
                :: else -> break
                od;
                /* Doze.saw() */
                atomic { pending = (first -> xip : pending & xip); first = false; xip = 0 }
#ifdef NO_PENDING
                pending = 0;
#endif
#ifdef MUFFLE_LATE
                heard = false;
#endif
#ifdef LISTEN_LATE
                listen();
#endif
                if
                :: any && heard && busy < BUSY -> busy++; pending = 0; set_flag(1); goto awake
                :: true
                fi;
wait:           atomic { first = false; any = false };
                if
                :: pending != 0         /* looks again after a delay */
                :: atomic { pending == 0 -> sleeping = true; printf("leader: sleeps\n") }
end_asleep:         atomic { heard -> sleeping = false }
                fi
            od
        } unless {
            killed;
            /* The server ends the session before it gives the lock to the next leader. */
            d_step {
                printf("the leader is killed\n");
                if
                :: xid -> end_xid(xid)
                :: else
                fi;
                listening = false; due = false; heard = false; sleeping = false; killed = false;
                xid = 0; xip = 0; pending = 0; any = false; first = false
            }
        }
    od
}

proctype Death() {
    do
    :: atomic { deaths < DEATHS && !killed -> deaths++; killed = true }
    :: deaths == DEATHS -> break
    od
}

/* ---- The claim. */

#define OVERSLEPT (sleeping && !heard && !due && (changes & ~told) != 0)

proctype Watch() {
end:
    atomic { OVERSLEPT -> printf("overslept: committed %d, read %d\n", changes, told); assert(false) }
}

init {
    byte writers;
    atomic {
        if                  /* a leader before these left it as it was */
        :: flag = 0
        :: flag = 1
        fi;
        copy(saved_last, last);
        run Watch(); run Wire(); run Leader(); run Death();
        do
        :: writers < WRITERS -> run Writer(writers); writers++
        :: else -> break
        od
    }
}
