/*
 * Which groups somebody has, for the model checker spin. djcrf_pg/delivery/interest.py says what it does and why; what it
 * stands for are djcrf_pg/listener/gate.py (the process), djcrf_pg/changelog/sql/reader.sql (the read) and
 * djcrf_pg/listener/dispatch.py (the leader).
 *
 * The claim: of the changes that a subscription is to receive, which are those that commit after its snapshot, the leader
 * leaves none out, or its subscriber reloads after the change was committed. models/check.py checks the model as it is,
 * and with each of the mistakes that `#ifdef` makes.
 *
 * What it takes for granted of PostgreSQL:
 *  - A snapshot sees what had committed at one moment. A statement reads rows by one snapshot.
 *  - A sequence is outside of snapshots and transactions: a statement reads it as it is, some time after its snapshot.
 *  - What a session has committed outlives it. (That a failover may lose it is left out; so are crashes, which end all
 *    sessions: the leader's, so it fetches anew, and the process's, so it looks after its rows.)
 */

#ifndef LANES
#define LANES 2             /* groups that the process subscribes to, one after the other */
#endif
#ifndef CHANGES
#define CHANGES 2           /* in each of them at most */
#endif
#ifndef LOSSES
#define LOSSES 1            /* how often the process loses its session */
#endif
#ifndef OTHERS
#define OTHERS 1            /* how often another process publishes */
#endif
#ifndef TERMS
#define TERMS 2             /* leaders, one after the other */
#endif

#define BIT(lane) (1 << (lane))
#define HOLDERS 3           /* more than LOSSES */

/* ---- The server: what is committed. */

byte rows[HOLDERS];         /* the lanes that a holder, a session of the process, has published */
byte version;
byte committed[LANES];      /* changes of each lane */
byte holder;                /* the one whose session is the last */
bool alive = true;          /* it lives */
byte losses;

#define ALL (rows[0] | rows[1] | rows[2])

/* ---- What the process and the leader have brought about. */

byte subscribed;            /* lanes whose subscription has its snapshot */
byte since[LANES];          /* changes that this snapshot sees */
byte left_out[LANES];       /* the last change that the leader left out, and that was to be received */
byte reloaded[LANES];       /* changes that the subscriber has seen since, for it was told to reload */

proctype Writer(byte lane) {
    do
    :: atomic { committed[lane] < CHANGES -> committed[lane]++; printf("writer: lane %d, change %d\n", lane, committed[lane]) }
    :: committed[lane] == CHANGES -> break
    :: break
    od
}

proctype Death() {
    do
    :: atomic { losses < LOSSES -> losses++; alive = false; printf("the session of holder %d ends\n", holder) }
    :: atomic { losses = LOSSES; break }
    od
}

/* Another process, of other lanes. */
proctype Other() {
    byte others;
    do
    :: atomic { others < OTHERS -> others++; version++ }
    :: break
    od
}

/* ---- The process. Each line is a statement; with its session gone, none. */

inline publish(lanes) {
    atomic {
        if
        :: alive -> rows[holder] = lanes; printf("process: holder %d publishes %d\n", holder, lanes)
        :: else
        fi
    }
}

inline rise() {
    atomic {
        if
        :: alive -> version++; printf("process: version %d\n", version)
        :: else
        fi
    }
}

inline write(lanes) {
#ifdef RISE_FIRST
    rise();
    publish(lanes)
#else
    publish(lanes);
    rise()
#endif
}

inline take_snapshot() {
    atomic {
        if
        :: alive ->
            since[lane] = committed[lane]; subscribed = subscribed | BIT(lane);
            printf("process: subscribes to lane %d, whose changes up to %d it sees\n", lane, since[lane])
        :: else
        fi
    }
}

/* Whether the former holder's rows are there. */
inline look() {
    atomic {
        if
        :: alive ->
            missed = missed || (rows[former] & published) != published;
            printf("process: looks after holder %d, missed %d\n", former, missed)
        :: else
        fi
    }
}

/* Gate._begin() */
inline begin() {
    atomic { holder++; alive = true; printf("process: is holder %d\n", holder) };
#ifdef LOOK_FIRST
    look();
#endif
    write(published);
#ifndef LOOK_FIRST
#ifndef NO_LOOK
    look();
#endif
#endif
    /* Where its session is gone already, it is as if it had never begun. */
    atomic {
        if
        :: alive -> former = holder
        :: else
        fi
    };
    /* Hub: all subscribers reload. */
    atomic {
        if
        :: missed && alive ->
            other = 0;
            do
            :: other < LANES ->
                if
                :: subscribed & BIT(other) -> reloaded[other] = committed[other]
                :: else
                fi;
                other++
            :: else -> break
            od;
            other = 0; missed = false;
            printf("process: subscribers reload\n")
        :: else
        fi
    }
}

proctype Process() {
    byte lane, former, published, other;
    bool missed;

    do
    :: atomic { !alive -> skip };
        begin()             /* Gate.renew(), or the next subscription */
    :: atomic { alive && lane < LANES -> skip };
#ifdef SNAPSHOT_FIRST
        take_snapshot();
#endif
        write(published | BIT(lane));
        atomic {
            if
            :: alive -> published = published | BIT(lane)
            :: else
            fi
        };
#ifndef SNAPSHOT_FIRST
        if
        :: published & BIT(lane) -> take_snapshot()
        :: else
        fi;
#endif
        atomic {
            if
            :: subscribed & BIT(lane) && published & BIT(lane) -> lane++
            :: else
            fi
        }
    :: atomic { alive && lane == LANES && losses == LOSSES -> break }
    od
}

/* ---- The leader. */

inline read_window() {
    atomic {
        lane = 0;
        do
        :: lane < LANES -> window[lane] = committed[lane]; lane++
        :: else -> break
        od;
        lane = 0;
        printf("leader: reads\n")
    }
}

inline read_version() {
    atomic { number = version; printf("leader: reads version %d\n", number) }
}

inline fetch() {
    atomic { known = ALL; printf("leader: fetches %d\n", known) }
}

inline prune() {
    atomic {
        lane = 0;
        do
        :: lane < HOLDERS ->
            if
            :: rows[lane] && !(lane == holder && alive) -> rows[lane] = 0; printf("leader: prunes holder %d\n", lane)
            :: else
            fi;
            lane++
        :: else -> break
        od;
        lane = 0
    }
}

proctype Leader() {
    byte terms, lane, number, known, cached;
    byte window[LANES], read[LANES];
    bool fetched;

    do
    ::
#ifdef VERSION_FIRST
        read_version();
        read_window();
#else
#ifdef FETCH_FIRST
        read_version();
        if
        :: !fetched || cached != number -> fetch(); cached = number; fetched = true
        :: else
        fi;
        read_window();
#else
        read_window();
        read_version();
#endif
#endif
        if
        :: !fetched || cached != number ->
            fetch();
#ifdef VERSION_LAST
            read_version();
#endif
            atomic { cached = number; fetched = true }
        :: else
        fi;
        atomic {
            do
            :: lane < LANES ->
                if
                :: !(known & BIT(lane)) && (subscribed & BIT(lane)) && window[lane] > read[lane] && window[lane] > since[lane] ->
                    left_out[lane] = window[lane];
                    printf("leader: leaves out change %d of lane %d\n", window[lane], lane)
                :: else
                fi;
                read[lane] = window[lane]; window[lane] = 0;
                lane++
            :: else -> break
            od;
            lane = 0; number = 0
        }
    :: prune()
    :: atomic { terms < TERMS - 1 -> terms++; fetched = false; known = 0; cached = 0; printf("another leader\n") }
    :: break
    od
}

/* ---- The claim, when all is done. */

proctype Watch() {
    byte lane;
    atomic {
        timeout ->
        do
        :: lane < LANES ->
            if
            :: left_out[lane] > reloaded[lane] -> printf("left out: change %d of lane %d\n", left_out[lane], lane); assert(false)
            :: else
            fi;
            lane++
        :: else -> break
        od
    }
}

init {
    byte lane;
    atomic {
        run Watch(); run Process(); run Death(); run Other(); run Leader();
        do
        :: lane < LANES -> run Writer(lane); lane++
        :: else -> break
        od
    }
}
