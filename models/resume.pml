/*
 * Resuming and healing, for the model checker spin. docs/explanation/delivery-guarantees.md says what they do and why;
 * what they stand for are djcrf_pg/observer/model_observer.py (the client), djcrf_pg/delivery/hub.py and
 * djcrf_pg/delivery/protocol.py (the process), djcrf_pg/listener/replay.py (what is read from the log), and
 * djcrf_pg/listener/dispatch.py (the leader).
 *
 * The claim: a client that subscribes behind a cursor handles each change once, those of a row in the order of their
 * commits, whatever the layer drops, whenever leaders change, and however often the client's connection breaks; none
 * after it has unsubscribed; and it has all of them in the end. It loads again only where the log has deleted what it
 * misses. models/check.py checks the model as it is, and with each of the mistakes that `#ifdef` makes.
 *
 * A set of changes is a number with their bits. So is a snapshot, which is what had been committed, and so is a cursor or
 * a mark: what a snapshot sees, and of a later one what is not behind some id.
 *
 * What it takes for granted:
 *  - Changes are read in the order of their ids. Those of one row commit in that order, and others in any.
 *  - The layer keeps the order of what it does not drop. (Where it does not, a heartbeat's patience stands for it.)
 *  - A process follows a leader only when the database has confirmed the term, and none that is older.
 * Each message has one event, and each change is told: nothing is netted.
 */

#ifndef CLIENTS
#define CLIENTS 1
#endif
#ifndef CHANGES
#define CHANGES 3           /* transactions, each with one change; four at most */
#endif
#ifndef ROWS
#define ROWS 2              /* change 0 is one of row 0, change 1 one of row 1, and so on in turn */
#endif
#ifndef DROPS
#define DROPS 1             /* messages and heartbeats that the layer drops */
#endif
#ifndef DEATHS
#define DEATHS 1            /* how often the leader is killed, and another follows */
#endif
#ifndef CUTS
#define CUTS 1              /* how often a client's connection breaks, or it unsubscribes and subscribes again */
#endif
#ifndef TRIMS
#define TRIMS 0             /* how often old changes are deleted from the log */
#endif
#ifndef CAPACITY
#define CAPACITY 2          /* of the layer */
#endif

#define BIT(change) (1 << (change))
#define UP_TO(change) ((2 << (change)) - 1)

#define BEAT CHANGES        /* in place of a change: a heartbeat, and a resync */
#define RESYNC CHANGES
#define HEALED 16           /* more than CHANGES, for a mistake */

/* The one of a set that comes first. */
inline first_of(set, change) {
    d_step {
        change = 0;
        do
        :: set & BIT(change) -> break
        :: else -> change++
        od
    }
}

/* ---- Clients, as the process knows them. */

bool subscribed[CLIENTS];   /* it is in the lane */
bool begun[CLIENTS];        /* its call of subscribe() has returned */
byte since[CLIENTS];        /* the moment of its subscription */
byte replay[CLIENTS];       /* what it has missed, and has not handled yet */
byte seen[CLIENTS];         /* what it has */
bool slow[CLIENTS];         /* it handles nothing more until its connection breaks */
bool looks;                 /* somebody has read the log, and is to look at whether it had all */

typedef Inbox { chan entries = [CHANGES + CHANGES] of { byte, byte } }  /* a change or RESYNC, the cursor behind it */
Inbox inboxes[CLIENTS];

#ifdef REPLAY_NOT_HELD
#define IS_LIVE(client) (subscribed[client])
#else
#ifdef INBOX_GOES_ON
#define IS_LIVE(client) ((begun[client] || !subscribed[client]) && !replay[client])
#else
#define IS_LIVE(client) (begun[client] && !replay[client])
#endif
#endif

#ifdef REPLAY_GOES_ON
#define REPLAYS(client) (replay[client] && (begun[client] || !subscribed[client]))
#else
#define REPLAYS(client) (replay[client] && begun[client])
#endif

#define HANDLES(client) (!slow[client] && (REPLAYS(client) || (IS_LIVE(client) && len(inboxes[client].entries) > 0)))

/* What a client does in its turn concerns nobody else, so it is done at once: fewer states. It may be slow all the same,
 * which is to be seen only when its connection breaks. Nor does it matter when a log is read that nothing is deleted
 * from. */
#if CLIENTS > 1     /* two at most */
#define CALM (!HANDLES(0) && !HANDLES(1) && (TRIMS || !looks))
#else
#define CALM (!HANDLES(0) && (TRIMS || !looks))
#endif

/* ---- The database. */

byte committed;
byte trimmed;               /* deleted from the log */
byte saved;                 /* the leader's cursor */

#define MAY_COMMIT(change) \
    (change < CHANGES && !(committed & BIT(change)) && (change < ROWS || committed & (BIT(change) >> ROWS)))

inline commit(change) {
    committed = committed | BIT(change);
    printf("writer: commits change %d\n", change)
}

proctype Writers() {
end:
    do
    :: atomic { CALM && MAY_COMMIT(0) -> commit(0) }
    :: atomic { CALM && MAY_COMMIT(1) -> commit(1) }
    :: atomic { CALM && MAY_COMMIT(2) -> commit(2) }
    :: atomic { CALM && MAY_COMMIT(3) -> commit(3) }
    od
}

proctype Retention() {
    byte trims;
end:
    do
    :: atomic {
            CALM && trims < TRIMS && saved != trimmed ->
            trims++; trimmed = saved; printf("retention: deletes %d\n", trimmed)
        }
    od
}

/* ---- The layer, with the one channel of the process. */

/* A change or BEAT, the term, the number, what was sent before, the window that it is of. */
chan layer = [CAPACITY] of { byte, byte, byte, byte, byte };
bool joined;                /* the process receives the stream */
byte drops;

#define MAY_SEND (!joined || len(layer) < CAPACITY || drops < DROPS)

inline send(what) {
    if
    :: !joined
    :: joined && len(layer) < CAPACITY -> layer!what, term, number, sent, target; arrives = true
    :: joined && drops < DROPS -> drops++; printf("layer: drops %d\n", what)
    fi
}

/* ---- The leader. */

proctype Leader() {
    byte sent, target;      /* what was sent, and the end of the window that is being sent */
    byte term = 1, number, change;
    bool arrives, untold = true;

end:
    do
    :: atomic { CALM && sent == target && committed != sent -> target = committed; printf("leader: reads up to %d\n", target) }
    :: atomic {
            CALM && sent != target && MAY_SEND ->
            first_of(target & ~sent, change);
            number++;
            printf("leader: sends change %d as number %d of term %d\n", change, number, term);
            send(change);
            sent = sent | BIT(change);
            untold = true; arrives = false; change = 0
        }
    :: atomic {             /* each second, until it has arrived */
            CALM && untold && sent == target && MAY_SEND ->
            printf("leader: says that %d is sent, up to number %d of term %d\n", sent, number, term);
            send(BEAT);
            untold = joined && !arrives;
            arrives = false;
            if
            :: DEATHS || TRIMS -> saved = sent
            :: true
            fi
        }
    :: atomic {
            CALM && term <= DEATHS ->
            term++; number = 0; sent = saved; target = saved; untold = true;
            printf("another leader: begins at %d\n", saved)
        }
    od
}

/* ---- The process. */

bool confirmed;             /* the database has said what had been committed after the process joined the stream */
bool asked_first;           /* somebody has asked for that */
byte first;                 /* and what was committed then: answers are taken in the order of the questions */
byte known;                 /* what was handed over, or is for nobody here */

inline hand(what, cursor) {
    d_step {
        client = 0;
        do
        :: client < CLIENTS ->
            if
#ifdef WAITING_LEFT_OUT
            :: subscribed[client] && (begun[client] || !healing) -> inboxes[client].entries!what, cursor
#else
            :: subscribed[client] -> inboxes[client].entries!what, cursor
#endif
            :: else
            fi;
            client++
        :: else -> break
        od;
        client = 0
    }
}

#define ASK 1
#define READ 2
#define LOOK 3

#ifdef HEAL_NOT_HELD
#define TAKES confirmed
#else
#ifdef TAKEN_EARLY
#define TAKES (!healing)
#else
#define TAKES (confirmed && !healing)
#endif
#endif

proctype Hub() {
    byte term, number, what, of_term, of_number, before, window, client;
    byte healing, moment, found, cursor;
    bool lost;
#ifdef RESENT_NOT_DROPPED
    byte healed;
#endif
#ifdef HEALED_NOT_DROPPED
    byte healed;
#endif
#ifdef HEAL_FROM_BEAT
    byte beaten;
#endif
#ifdef ONE_HEAL
    bool healed_before;
#endif

end:
    do
    :: atomic {
            CALM && TAKES && len(layer) > 0 ->
            layer?what, of_term, of_number, before, window;
            lost = (of_term != term || of_number > number + (what != BEAT)) && (before & ~known);
#ifdef NO_REACH
            lost = lost && of_term == term;
#endif
#ifdef TAKEN_EARLY
            lost = lost && confirmed;
#endif
#ifdef ONE_HEAL
            lost = lost && !healed_before; healed_before = false;
#endif
            term = of_term; number = of_number;
            if
            :: lost && !healing -> healing = ASK; printf("process: misses something before %d\n", what)
            :: else ->
                if
                :: what == BEAT ->
#ifdef HEAL_FROM_BEAT
                    beaten = before
#endif
#ifdef RESENT_NOT_DROPPED
                :: what != BEAT && !(healed & BIT(what)) ->
#else
#ifdef HEALED_NOT_DROPPED
                :: what != BEAT && !(known & ~healed & BIT(what)) ->
#else
                :: what != BEAT && !(known & BIT(what)) ->
#endif
#endif
                    known = known | BIT(what);
#ifdef CURSOR_OF_WINDOW
                    cursor = window;
#else
#ifdef CURSOR_OF_MESSAGE
                    cursor = before | BIT(what);
#else
                    cursor = known;
#endif
#endif
                    hand(what, cursor)
                :: else
                fi
            fi;
            what = 0; of_term = 0; of_number = 0; before = 0; window = 0; cursor = 0; lost = false
        }
#ifdef SHARED_QUESTION
    :: atomic { CALM && !healing && moment != committed -> moment = committed }
    :: atomic { CALM && healing == ASK -> healing = READ }
#else
    :: atomic { CALM && healing == ASK -> moment = committed; healing = READ; printf("process: asks, %d is committed\n", moment) }
#endif
    :: atomic {
            CALM && healing == READ ->
#ifdef HORIZON_FIRST
            lost = (moment & ~known & trimmed) != 0;
#else
            found = moment & ~known & ~trimmed;
#endif
#ifdef HEAL_FROM_BEAT
            found = moment & ~beaten & ~trimmed;
#endif
            healing = LOOK; looks = true
        }
    :: atomic {
            healing == LOOK ->
            looks = false;
#ifdef HORIZON_FIRST
            found = moment & ~known & ~trimmed;
#else
            lost = (moment & ~known & trimmed) != 0;
#endif
            if
            :: lost -> printf("process: has everybody load again\n"); hand(RESYNC, moment)
            :: else ->
                printf("process: heals %d\n", found);
                cursor = known;
                do
                :: found ->
                    first_of(found, what);
                    cursor = cursor | BIT(what);
                    found = found & ~BIT(what);
#ifdef HEAL_WITHOUT_MOMENT
                    hand(what + HEALED, cursor)
#else
                    hand(what, cursor)
#endif
                :: else -> break
                od
            fi;
#ifdef RESENT_NOT_DROPPED
            healed = healed | moment;
#endif
#ifdef HEALED_NOT_DROPPED
            healed = healed | (moment & ~known);
#endif
            known = known | moment;
            healing = 0; moment = 0; found = 0; cursor = 0; what = 0; lost = false
#ifdef ONE_HEAL
            ; healed_before = true
#endif
        }
    od
}

/* ---- The client. */

/* Its handler is called. */
inline handle(change) {
    printf("client %d: handles change %d\n", number, change);
    if
    :: !subscribed[number] -> printf("wrong: client %d handles change %d, and has unsubscribed\n", number, change); assert(false)
    :: seen[number] & BIT(change) -> printf("wrong: client %d handles change %d twice\n", number, change); assert(false)
    :: change >= ROWS && !(seen[number] & (BIT(change) >> ROWS)) ->
        printf("wrong: client %d handles change %d, and not the one before\n", number, change); assert(false)
    :: else
    fi;
    seen[number] = seen[number] | BIT(change)
}

proctype Client(byte number) {
    byte cursor, moment, cuts, what, behind;
    bool asked, read, expired;

    /* consistent_read() */
    atomic { CALM -> seen[number] = committed; cursor = committed; printf("client %d: has a list of %d\n", number, cursor) };
end:
    do
    /* subscribe() */
#ifdef MOMENT_FIRST
    :: atomic { CALM && !asked -> moment = committed; asked = true; first = (asked_first -> first : moment); asked_first = true }
    :: atomic {
            CALM && asked && !subscribed[number] -> subscribed[number] = true; joined = true;
            printf("client %d: joins\n", number)
        }
#else
    :: atomic {
            CALM && !subscribed[number] -> subscribed[number] = true; joined = true;
            printf("client %d: joins\n", number)
        }
    :: atomic {
            CALM && subscribed[number] && !asked -> asked = true; moment = committed;
            first = (asked_first -> first : moment); asked_first = true;
            printf("client %d: asks, %d is committed\n", number, moment)
        }
#endif
    :: atomic {             /* reads the log */
            CALM && subscribed[number] && asked && !read && !begun[number] ->
#ifdef HORIZON_FIRST
            expired = (moment & ~cursor & trimmed) != 0;
#else
            replay[number] = moment & ~cursor & ~trimmed;
#endif
            read = true; looks = true
        }
    :: atomic {
            (CALM || !TRIMS) && read && !begun[number] ->
            looks = false;
#ifdef HORIZON_FIRST
            replay[number] = moment & ~cursor & ~trimmed;
#else
            expired = (moment & ~cursor & trimmed) != 0;
#endif
            known = (confirmed -> known : known | first);
            confirmed = true;
            if
            :: expired ->   /* CursorExpired: it loads again, and subscribes without it */
                subscribed[number] = false; asked = false;
                seen[number] = committed; cursor = committed;
                replay[number] = 0;
                printf("client %d: loads %d, for its cursor has expired\n", number, cursor)
            :: else ->
                begun[number] = true; since[number] = moment;
                printf("client %d: goes on behind %d, replays %d\n", number, cursor, replay[number])
            fi;
            moment = 0; read = false; expired = false
        }

    /* The inbox. */
    :: atomic {
            !slow[number] && REPLAYS(number) ->
            first_of(replay[number], what);
            replay[number] = replay[number] & ~BIT(what);
            cursor = cursor | BIT(what);
            handle(what);
            what = 0
        }
    :: atomic {
            !slow[number] && IS_LIVE(number) && len(inboxes[number].entries) > 0 ->
            inboxes[number].entries?what, behind;
            if
#ifdef HEAL_WITHOUT_MOMENT
            :: what >= HEALED -> what = what - HEALED; cursor = behind | since[number]; handle(what)
#endif
            :: what == RESYNC ->
                seen[number] = seen[number] | behind; cursor = cursor | behind;
                printf("client %d: loads %d\n", number, behind)
#ifndef MOMENT_NOT_DROPPED
            :: what < CHANGES && since[number] & BIT(what)
#endif
            :: else ->
#ifdef CURSOR_WITHOUT_MOMENT
                cursor = behind;
#else
                cursor = behind | since[number];
#endif
                handle(what)
            fi;
            what = 0; behind = 0
        }

    :: atomic { HANDLES(number) && cuts < CUTS -> slow[number] = true; printf("client %d: is slow\n", number) }

    /* The connection breaks, or it unsubscribes and subscribes again, behind the last event that it has handled. */
    :: atomic {
            subscribed[number] && cuts < CUTS && (CALM || slow[number]) ->
            cuts++; slow[number] = false;
            if
            :: true ->
                printf("client %d: its connection breaks\n", number);
                do
                :: len(inboxes[number].entries) > 0 -> inboxes[number].entries?what, behind
                :: len(inboxes[number].entries) == 0 -> break
                od;
                what = 0; behind = 0
            :: printf("client %d: unsubscribes, to subscribe again\n", number)
            fi;
            subscribed[number] = false; begun[number] = false; since[number] = 0;
            looks = looks && !read;
#ifndef REPLAY_GOES_ON
            replay[number] = 0;
#endif
            asked = false; read = false; moment = 0
        }
    od
}

/* ---- The claim, when all is done. */

proctype Watch() {
    byte client;
    atomic {
        timeout ->
        do
        :: client < CLIENTS ->
            if
            :: seen[client] != committed ->
                printf("wrong: client %d has %d, and %d is committed\n", client, seen[client], committed); assert(false)
            :: else
            fi;
            client++
        :: else -> break
        od
    }
}

init {
    byte client;
    atomic {
        if                  /* somebody else has subscribed before */
        :: joined = true; asked_first = true; confirmed = true
        :: true
        fi;
        run Watch(); run Writers(); run Retention(); run Leader(); run Hub();
        do
        :: client < CLIENTS -> run Client(client); client++
        :: else -> break
        od
    }
}
