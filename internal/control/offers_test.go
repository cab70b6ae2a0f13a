package control

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/berth-run/berth/internal/rpc"
)

// aHead opens a connection, and answers it as a head does, unless it is deaf.
func aHead(o *offers, cluster string, deaf bool) (head net.Conn, heard <-chan byte) {
	ours, theirs := net.Pipe()
	said := make(chan byte, 1000)
	go func() {
		defer close(said)
		var b [1]byte
		for {
			if _, err := theirs.Read(b[:]); err != nil {
				return
			}
			said <- b[0]
			if b[0] == rpc.OfferTaken {
				if !deaf {
					_, _ = theirs.Write(b[:])
				}
				return
			}
		}
	}()
	o.add(cluster, ours)
	return theirs, said
}

func TestAClientTakesAConnectionThatItsHeadHasOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffers()
		head, _ := aHead(o, "one", false)
		aHead(o, "two", false)
		conn := o.take(t.Context(), "one")
		if conn == nil {
			t.Fatal("there is none")
		}
		go func() { _, _ = conn.Write([]byte("words")) }()
		got := make([]byte, 5)
		if _, err := head.Read(got); err != nil || string(got) != "words" {
			t.Errorf("the head reads %q, %v", got, err)
		}
		time.Sleep(10 * time.Minute) // nothing is said between them
		go func() { _, _ = head.Write([]byte("reply")) }()
		if _, err := conn.Read(got); err != nil || string(got) != "reply" {
			t.Errorf("the client reads %q, %v", got, err)
		}
		o.close()
	})
}

func TestWhereNoHeadHasOpenedAConnectionNobodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, began := newOffers(), time.Now()
		if conn := o.take(t.Context(), "one"); conn != nil || time.Since(began) > 0 {
			t.Errorf("%v after %s", conn, time.Since(began))
		}
	})
}

func TestAHeadThatOpensAnotherIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffers()
		aHead(o, "one", false)
		if o.take(t.Context(), "one") == nil {
			t.Fatal("there is none")
		}
		go func() {
			time.Sleep(offerComes / 2)
			aHead(o, "another", false) // which is not what is waited for
			aHead(o, "one", false)
		}()
		if o.take(t.Context(), "one") == nil {
			t.Error("the second is not waited for")
		}
		began := time.Now()
		if conn := o.take(t.Context(), "one"); conn != nil || time.Since(began) > 2*offerComes {
			t.Errorf("%v after %s", conn, time.Since(began))
		}
		time.Sleep(time.Minute)
		began = time.Now()
		if conn := o.take(t.Context(), "one"); conn != nil || time.Since(began) > 0 {
			t.Errorf("%v after %s, long after the last", conn, time.Since(began))
		}
		o.close()
	})
}

func TestAHeadThatDoesNotAnswerIsPassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffers()
		alive, _ := aHead(o, "one", false)
		deaf, _ := aHead(o, "one", true)
		gone, _ := aHead(o, "one", false)
		_ = gone.Close()
		synctest.Wait()
		conn := o.take(t.Context(), "one")
		if conn == nil {
			t.Fatal("the one that is alive is not found")
		}
		go func() { _, _ = conn.Write([]byte("a")) }()
		if _, err := alive.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
		if _, err := deaf.Read(make([]byte, 1)); err == nil {
			t.Error("the one that does not answer is still open")
		}
		o.close()
	})
}

func TestAHeadIsToldThatItsConnectionWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffers()
		_, heard := aHead(o, "one", false)
		time.Sleep(4*offerPingEvery + time.Second)
		synctest.Wait()
		if len(heard) != 4 || <-heard != rpc.OfferWaits {
			t.Errorf("it was told %d times", len(heard))
		}
		o.close()
	})
}

func TestAHeadHasNoMoreConnectionsThanItMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffers()
		var last net.Conn
		for range maxOffers + 1 {
			last, _ = aHead(o, "one", false)
		}
		synctest.Wait()
		if len(o.waiting["one"]) != maxOffers {
			t.Errorf("%d wait", len(o.waiting["one"]))
		}
		if _, err := last.Write([]byte{0}); err == nil {
			t.Error("the one too many is open")
		}
		o.close()
	})
}

func TestConnectionsOfHeadsEndWithTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOffers()
		_, heard := aHead(o, "one", false)
		o.close()
		for range heard { // until it is closed
		}
		_, heard = aHead(o, "one", false)
		for range heard {
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if conn := o.take(ctx, "one"); conn != nil {
			t.Error("one is taken")
		}
	})
}
