package control

import (
	"context"
	"encoding/json"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/berth-run/berth"
	"github.com/berth-run/berth/internal/rpc"
)

// OffersPath is where heads of clusters open connections for clients to come
// through, below an infrastructure's callback_to; the id of the cluster follows.
const OffersPath = CallbackPath + "/clusters/"

const (
	// offerPingEvery is how often a head is told that its connection is waiting.
	// One that hears nothing for three times as long opens another.
	offerPingEvery = 15 * time.Second
	// offerAnswer is how long a head may take to answer that a client is there.
	offerAnswer = 2 * time.Second
	// offerComes is how long it is waited for another connection of a head whose
	// connections were just taken; it opens more at once.
	offerComes = time.Second
	// maxOffers bounds how many connections of one cluster wait.
	maxOffers = 8
)

// offers are connections that heads of clusters have opened, and that wait for
// clients. They are as fast as the network: there is no API server, no kubelet and
// no second encryption between a client and its head.
type offers struct {
	mu      sync.Mutex
	waiting map[string][]*offer // the newest is the last
	active  map[string]time.Time
	more    chan struct{} // closed when one comes
	ended   bool
}

func newOffers() *offers {
	return &offers{waiting: map[string][]*offer{}, active: map[string]time.Time{}, more: make(chan struct{})}
}

// offer is one connection. Its reader sees the head's answer, or its end.
type offer struct {
	conn     net.Conn
	answered chan struct{}
	gone     chan struct{}
	taken    chan struct{}
}

// add has a connection wait for a client.
func (o *offers) add(cluster string, conn net.Conn) {
	f := &offer{conn: conn, answered: make(chan struct{}), gone: make(chan struct{}), taken: make(chan struct{})}
	o.mu.Lock()
	if o.ended || len(o.waiting[cluster]) >= maxOffers {
		o.mu.Unlock()
		_ = conn.Close()
		return
	}
	o.waiting[cluster] = append(o.waiting[cluster], f)
	o.active[cluster] = time.Now()
	close(o.more)
	o.more = make(chan struct{})
	o.mu.Unlock()
	go f.read()
	go o.keep(cluster, f)
}

func (f *offer) read() {
	var answer [1]byte
	if n, _ := f.conn.Read(answer[:]); n == 1 && answer[0] == rpc.OfferTaken {
		close(f.answered)
		return
	}
	close(f.gone)
}

// keep tells the head from time to time that its connection is waiting, until it
// is taken or gone.
func (o *offers) keep(cluster string, f *offer) {
	t := time.NewTicker(offerPingEvery)
	defer t.Stop()
	for {
		select {
		case <-f.taken:
			return
		case <-t.C:
			if o.ping(cluster, f) {
				continue
			}
		case <-f.gone:
		case <-f.answered:
		}
		select {
		case <-f.taken: // and answered, as it was asked
			return
		default:
		}
		o.remove(cluster, f)
		_ = f.conn.Close()
		return
	}
}

// ping reports whether a connection that still waits could be told so.
func (o *offers) ping(cluster string, f *offer) bool {
	o.mu.Lock() // against its being taken just now: nothing may follow that
	defer o.mu.Unlock()
	for _, w := range o.waiting[cluster] {
		if w == f {
			_ = f.conn.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)) // a byte a quarter of a minute waits for nothing
			_, err := f.conn.Write([]byte{rpc.OfferWaits})
			return err == nil
		}
	}
	return true
}

func (o *offers) remove(cluster string, f *offer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := o.waiting[cluster]
	for i, w := range all {
		if w == f {
			o.waiting[cluster] = append(all[:i:i], all[i+1:]...)
		}
	}
	if len(o.waiting[cluster]) == 0 {
		delete(o.waiting, cluster)
	}
}

// take returns a connection to the head of a cluster, or nil if it has opened none
// that is alive.
func (o *offers) take(ctx context.Context, cluster string) net.Conn {
	ctx, cancel := context.WithTimeout(ctx, offerComes+offerAnswer)
	defer cancel()
	for {
		f, more := o.next(cluster)
		switch {
		case f != nil:
			if f.begin(ctx) {
				return f.conn
			}
			_ = f.conn.Close()
		case more == nil:
			return nil
		default:
			t := time.NewTimer(offerComes)
			select {
			case <-more:
			case <-t.C:
				return nil
			case <-ctx.Done():
			}
			t.Stop()
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// next takes the newest connection that waits. If there is none, more is closed
// when one comes; it is nil where none is to be expected.
func (o *offers) next(cluster string) (f *offer, more <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	for id, at := range o.active { // few, and each is there for a short time
		if now.Sub(at) > 2*offerComes && len(o.waiting[id]) == 0 {
			delete(o.active, id)
		}
	}
	all := o.waiting[cluster]
	if len(all) == 0 {
		if _, ok := o.active[cluster]; ok && !o.ended {
			more = o.more
		}
		return nil, more
	}
	f = all[len(all)-1]
	if o.waiting[cluster] = all[:len(all)-1]; len(all) == 1 {
		delete(o.waiting, cluster)
	}
	o.active[cluster] = now
	close(f.taken)
	return f, nil
}

// begin tells the head that a client is there, and waits for its answer.
func (f *offer) begin(ctx context.Context) bool {
	_ = f.conn.SetWriteDeadline(time.Now().Add(offerAnswer))
	if _, err := f.conn.Write([]byte{rpc.OfferTaken}); err != nil {
		return false
	}
	_ = f.conn.SetWriteDeadline(time.Time{})
	t := time.NewTimer(offerAnswer)
	defer t.Stop()
	select {
	case <-f.answered:
		rpc.EndsWhenUnanswered(f.conn)
		return true
	case <-f.gone:
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

// close ends all connections that wait, and takes no more.
func (o *offers) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	for _, all := range o.waiting {
		for _, f := range all {
			_ = f.conn.Close()
		}
	}
	close(o.more)
	o.more = make(chan struct{})
}

// dialled counts connections of clients to heads, by the way that they take.
type dialled struct{ offered, forwarded atomic.Int64 }

// offered returns a connection that the head of a cluster has opened to this
// server, or nil. The dashboard's never takes one: it speaks no TLS of its own.
func (h *Host) offered(ctx context.Context, c *berth.Cluster, port berth.ClusterPort) net.Conn {
	if port != berth.ClusterScheduler || c.State.Terminal() {
		return nil
	}
	conn := h.offers.take(ctx, c.ID)
	if conn != nil {
		h.dialled.offered.Add(1)
	}
	return conn
}

// headOffer is what the head of a cluster finds beside its keys, where its
// infrastructure has a callback_to.
type headOffer struct {
	URL   string `json:"url"`
	Token string `json:"token"`
	CA    string `json:"ca,omitempty"` // PEM; empty: the system's
}

func (h *Host) headOffer(infra *berth.InfrastructureConfig, cluster string) ([]byte, error) {
	return json.Marshal(headOffer{
		URL:   strings.TrimSuffix(infra.CallbackTo, "/") + OffersPath + cluster,
		Token: h.agents.keys.HeadToken(cluster), CA: h.callbackCA(),
	})
}

// admitsOffer says whether a token is that of the head of a cluster that is there.
func (h *Host) admitsOffer(ctx context.Context, token, cluster string) error {
	if !h.agents.keys.ValidHead(token, cluster) {
		return berth.Errorf(berth.CodeUnauthorized, "the token is not the one of this cluster")
	}
	r, err := h.store.Cluster(ctx, cluster)
	if err == nil && r.Cluster.State.Terminal() {
		return berth.NoSuchCluster(cluster)
	}
	return err
}
