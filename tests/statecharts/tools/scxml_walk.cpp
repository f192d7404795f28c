// Runs the chart as compiled by qscxmlc. Arguments: all guards. Each line of input: those that are true; the answer to
// each is the active state and the number of the row that fired last.
#include "chart.h"

#include <QCoreApplication>
#include <QScxmlDataModel>
#include <QTextStream>

int main(int argc, char **argv)
{
    QCoreApplication app(argc, argv);
    const QStringList guards = app.arguments().mid(1);
    Chart chart;
    chart.start();
    app.processEvents();
    QTextStream in(stdin), out(stdout);
    for (QString line; in.readLineInto(&line);) {
        const QStringList held = line.split(u' ');
        for (const QString &guard : guards)
            chart.dataModel()->setScxmlProperty(guard, held.contains(guard), QStringLiteral("walk"));
        chart.submitEvent(QStringLiteral("tick"));
        app.processEvents();
        const int row = chart.dataModel()->scxmlProperty(QStringLiteral("row")).toInt();
        out << chart.activeStateNames().join(u',') << ' ' << row << Qt::endl;
    }
}
