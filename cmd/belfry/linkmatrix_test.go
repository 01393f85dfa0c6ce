package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"

	belfryv1 "github.com/belfry-ha/belfry/gen/belfry/v1"
)

// fullMatrix has a link of each of n nodes to each other.
func fullMatrix(n int) []*belfryv1.LinkMatrixRow {
	rows := make([]*belfryv1.LinkMatrixRow, n)
	for i := range rows {
		rows[i] = &belfryv1.LinkMatrixRow{Node: fmt.Sprintf("n%03d", i), Answered: true}
		for j := range n {
			if j != i {
				rows[i].Cells = append(rows[i].Cells, &belfryv1.LinkMatrixCell{
					Peer: fmt.Sprintf("n%03d", j), Network: "net1", State: "up", LossRatio: 0.25,
					RttKnown: true, Rtt: durationpb.New(time.Duration(i+j) * time.Microsecond),
				})
			}
		}
	}
	return rows
}

func TestTheMatrixShowsWhatIsNotKnown(t *testing.T) {
	t.Parallel()
	rows := fullMatrix(3)
	rows[1] = &belfryv1.LinkMatrixRow{Node: "n001", Error: "down"}
	rows[2].Cells = rows[2].Cells[:1] // does not watch n001
	rows[0].Cells[1].RttKnown = false
	for metric, want := range map[string]string{
		"state": "FROM/TO  n000  n001  n002\nn000     -     up    up\nn001     ?     -     ?\nn002     up    -     -\n",
		"loss":  "FROM/TO  n000   n001   n002\nn000     -      25.0%  25.0%\nn001     ?      -      ?\nn002     25.0%  -      -\n",
		"rtt":   "FROM/TO  n000  n001  n002\nn000     -     1µs   -\nn001     ?     -     ?\nn002     2µs   -     -\n",
	} {
		o := &output{}
		matrixTables(o, rows, metric)
		if diff := cmp.Diff(want, o.buffer.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", metric, diff)
		}
	}
	want := []unansweredView{{"n001", "down"}}
	if diff := cmp.Diff(want, viewOfMatrix(&belfryv1.GetLinkMatrixResponse{Rows: rows}).Unanswered); diff != "" {
		t.Errorf("unanswered (-want +got):\n%s", diff)
	}
}

func BenchmarkLinkMatrixOf200(b *testing.B) {
	rows := fullMatrix(200)
	for b.Loop() {
		o := &output{colored: true}
		matrixTables(o, rows, "state")
	}
}
