package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// plotFolder is where plots lie, beside the README.
const plotFolder = "plots"

// A plot is a picture of a table.
type plot struct {
	file string
	draw func(*report) *chart
}

// A chart is lines over two axes, in SVG.
type chart struct {
	title  string
	x, y   axis
	curves []curve
}

type axis struct {
	label string
	log   bool
	ticks []float64
	text  func(float64) string
}

type curve struct {
	name   string
	points [][2]float64
	steps  bool // a staircase, as of a distribution
	marks  bool // a dot at each point
	dashed bool
}

// The picture, in pixels. A legend stands right of it.
const (
	chartWidth  = 860
	chartHeight = 420
	plotLeft    = 70
	plotRight   = 600
	plotTop     = 40
	plotBottom  = 360
)

// colours can be told apart by the colour-blind as well (Okabe and Ito).
var colours = [...]string{"#0072b2", "#56b4e9", "#d55e00", "#e69f00", "#009e73", "#cc79a7"}

func (a axis) low() float64 { return a.ticks[0] }

func (a axis) high() float64 { return a.ticks[len(a.ticks)-1] }

// place is where a value is between from and to.
func (a axis) place(v, from, to float64) float64 {
	low, high := a.low(), a.high()
	if a.log {
		low, high, v = math.Log(low), math.Log(high), math.Log(v)
	}
	return from + (v-low)/(high-low)*(to-from)
}

// svg is the picture.
func (c *chart) svg() string {
	var s strings.Builder
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13">`+"\n", chartWidth, chartHeight)
	fmt.Fprintf(&s, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", chartWidth, chartHeight)
	text := func(x, y float64, anchor, extra, words string) {
		fmt.Fprintf(&s, `<text x="%.1f" y="%.1f" text-anchor="%s"%s fill="#222">%s</text>`+"\n", x, y, anchor, extra, escape(words))
	}
	rule := func(x1, y1, x2, y2 float64, colour string) {
		fmt.Fprintf(&s, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s"/>`+"\n", x1, y1, x2, y2, colour)
	}
	text((plotLeft+plotRight)/2, 22, "middle", ` font-weight="bold"`, c.title)
	for _, v := range c.x.ticks {
		x := c.x.place(v, plotLeft, plotRight)
		rule(x, plotTop, x, plotBottom, "#e4e4e4")
		text(x, plotBottom+18, "middle", "", c.x.text(v))
	}
	for _, v := range c.y.ticks {
		y := c.y.place(v, plotBottom, plotTop)
		rule(plotLeft, y, plotRight, y, "#e4e4e4")
		text(plotLeft-8, y+4, "end", "", c.y.text(v))
	}
	rule(plotLeft, plotBottom, plotRight, plotBottom, "#222")
	rule(plotLeft, plotTop, plotLeft, plotBottom, "#222")
	text((plotLeft+plotRight)/2, plotBottom+42, "middle", "", c.x.label)
	text(18, (plotTop+plotBottom)/2, "middle", fmt.Sprintf(` transform="rotate(-90 18 %d)"`, (plotTop+plotBottom)/2), c.y.label)
	for i, cv := range c.curves {
		colour, dash := colours[i%len(colours)], ""
		if cv.dashed {
			dash = ` stroke-dasharray="6 4"`
		}
		fmt.Fprintf(&s, `<polyline fill="none" stroke="%s" stroke-width="2"%s points="%s"/>`+"\n", colour, dash, c.path(cv))
		if cv.marks {
			for _, p := range cv.points {
				fmt.Fprintf(&s, `<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"/>`+"\n", c.x.place(p[0], plotLeft, plotRight), c.y.place(p[1], plotBottom, plotTop), colour)
			}
		}
		y := float64(plotTop + 12 + 22*i)
		fmt.Fprintf(&s, `<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="%s" stroke-width="2"%s/>`+"\n", plotRight+20, y-4, plotRight+48, y-4, colour, dash)
		text(plotRight+56, y, "start", "", cv.name)
	}
	s.WriteString("</svg>\n")
	return s.String()
}

// path is the points of a line; a staircase goes across before it goes up.
func (c *chart) path(cv curve) string {
	var out []string
	for i, p := range cv.points {
		x, y := c.x.place(p[0], plotLeft, plotRight), c.y.place(p[1], plotBottom, plotTop)
		if cv.steps && i > 0 {
			before := c.y.place(cv.points[i-1][1], plotBottom, plotTop)
			out = append(out, fmt.Sprintf("%.1f,%.1f", x, before))
		}
		out = append(out, fmt.Sprintf("%.1f,%.1f", x, y))
	}
	return strings.Join(out, " ")
}

func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}

// distribution is the share of runs by time; what never happened is missing at
// its upper end.
func distribution(name string, s series) curve {
	sorted := slices.Sorted(slices.Values(s))
	c := curve{name: name, steps: true}
	for i, v := range sorted {
		if math.IsInf(v, 1) {
			break
		}
		if i == 0 {
			c.points = append(c.points, [2]float64{v, 0})
		}
		c.points = append(c.points, [2]float64{v, float64(i+1) / float64(len(sorted))})
	}
	return c
}

// plotDetection is when the first survivor knows of a silent host, of 64.
func plotDetection(r *report) *chart {
	c := &chart{
		title: "A host of 64 falls silent: the first survivor knows",
		x:     axis{label: "seconds since then", log: true, ticks: []float64{0.1, 0.2, 0.5, 1, 2, 5, 10, 20}, text: number},
		y:     axis{label: "share of runs", ticks: []float64{0, 0.25, 0.5, 0.75, 1}, text: func(v float64) string { return fmt.Sprintf("%.0f %%", 100*v) }},
	}
	for _, s := range systems() {
		cell := r.cell("silent64", s.Name)
		if cell == nil || s.sealed && s.Name != belfryName { // sealing changes bytes, not times
			continue
		}
		for _, level := range levelsOf(s.Name) {
			if level == stalled {
				continue
			}
			cv := distribution(s.Title+", "+level.String(), cell.Values[detectFirst+level.String()])
			cv.dashed = level == unreachable
			c.curves = append(c.curves, cv)
		}
	}
	return c
}

// plotBytes is what an idle node sends, by the size of the cluster.
func plotBytes(r *report) *chart {
	c := &chart{
		title: "What an idle node sends",
		x:     axis{label: "nodes", log: true, ticks: []float64{8, 32, 64, 1000, 10000}, text: func(v float64) string { return commas(int64(v)) }},
		y:     axis{label: "IP bytes per second", log: true, ticks: []float64{100, 200, 500, 1000, 2000}, text: number},
	}
	for _, s := range systems() {
		cv := curve{name: s.Title, marks: true, dashed: s.sealed && s.Name != belfryName}
		for i := range r.Virtual {
			cell := &r.Virtual[i]
			if cell.System == s.Name && strings.HasPrefix(cell.Scenario, "idle") {
				cv.points = append(cv.points, [2]float64{float64(cell.Nodes), middle(cell.Values[byteRate])})
			}
		}
		if len(cv.points) > 0 {
			slices.SortFunc(cv.points, func(a, b [2]float64) int { return int(a[0] - b[0]) })
			c.curves = append(c.curves, cv)
		}
	}
	return c
}
